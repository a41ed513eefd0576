"""From a tensor to counts and moments, in place.

On the CPU the compiled kernel counts where it can, :mod:`colordim.binning.reference` elsewhere. The environment
variable ``COLORDIM_BACKEND`` (``kernel`` or ``reference``) forces one of them. Tensors of another device are counted
there, by :mod:`colordim.binning.device`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from torch import Tensor

from colordim.axis import Axis
from colordim.binning import device, reference, units
from colordim.binning.kernel import Kernel, KernelError
from colordim.binning.rows import Row
from colordim.binning.units import mark_active
from colordim.errors import ArgumentError

__all__ = ["Row", "backend", "bin_into", "mark_active", "use_backend"]

_count: Callable[[Tensor, Axis, Row], bool]
_backend: tuple[str, str]


def bin_into(tensor: Tensor, axis: Axis, row: Row) -> bool:
    """Add every element of a tensor to the counters of a row.

    Parameters
    ----------
    tensor : Tensor
        Any shape, dtype and layout; see :func:`colordim.binning.tensors.flatten`. It is only read.
    axis : Axis
        The axis that `row` was made for.
    row : Row
        Changed in place, except for its ``calls``.

    Returns
    -------
    bool
        False if the tensor has no values that could be read; the row is then unchanged.
    """
    return _count(tensor, axis, row) if row.on_cpu else device.bin_into(tensor, axis, row)


def backend() -> tuple[str, str]:
    """Return the name of what counts CPU tensors, and a sentence on why that one."""
    return _backend


def use_backend(choice: str | Kernel | None = None) -> None:
    """Choose what counts CPU tensors in this process.

    Parameters
    ----------
    choice : {"kernel", "reference"} or Kernel, optional
        By default the kernel if it is there, else the reference.

    Raises
    ------
    KernelError
        If the kernel is asked for and is not there.
    ArgumentError
        If there is no such backend.
    """
    global _count, _backend
    if choice not in (None, "kernel", "reference") and not isinstance(choice, Kernel):
        raise ArgumentError(
            f"there is no backend {choice!r}: COLORDIM_BACKEND may be kernel or reference, or unset.",
            page="performance#the-kernel",
        )
    units.use_marking(units.mark_by_operations)
    if choice == "reference":
        _count, _backend = reference.bin_into, ("reference", "asked for, by COLORDIM_BACKEND or in the program.")
        return
    try:
        kernel = choice if isinstance(choice, Kernel) else Kernel()
    except KernelError as error:
        if choice == "kernel":
            raise KernelError(
                f"the backend kernel was asked for, but {error}", page="performance#the-kernel"
            ) from error
        _count, _backend = reference.bin_into, ("reference", str(error))
        return
    _count, _backend = kernel.bin_into, (kernel.name, kernel.note)
    units.use_marking(kernel.mark_active)


use_backend(os.environ.get("COLORDIM_BACKEND") or None)
