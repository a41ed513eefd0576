"""Which units (channels, features) of a layer are ever active: a unit that never is, is dead.

A unit is active in a tensor if at least one of its elements has a magnitude of ``2**-40`` or more, the smallest that
:class:`~colordim.axis.SignedLogAxis` tells from zero. NaN and infinities are active.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from colordim.axis import SignedLogAxis
from colordim.binning.tensors import as_real
from colordim.errors import ArgumentError

__all__ = ["LEAST", "mark_active", "mark_by_operations", "use_marking"]

#: The smallest magnitude that is active.
LEAST = 2.0**SignedLogAxis.MIN_EXPONENT

_FLOATS = {torch.float32, torch.float64, torch.bfloat16, torch.float16}
_mark_on_cpu: Callable[[Tensor, int, Tensor], bool]


def mark_active(tensor: Tensor, dim: int, active: Tensor) -> bool:
    """Set ``active[unit]`` for each unit that is active in a tensor; what is set already stays so.

    Parameters
    ----------
    tensor : Tensor, shape ``[..., units, ...]``
        Any dtype and device. It is only read. One that has no values to be read marks no unit: meta, fake, sparse,
        nested, or inside a functorch transform.
    dim : int
        The dimension of the units; negative ones count from the last.
    active : Tensor of bool or uint8, shape ``[units]``
        On the tensor's device. Changed in place, without waiting for the device.

    Returns
    -------
    bool
        True if every unit is known to be active now, so that there is no need to look again. False where knowing it
        would mean waiting for a device.

    Raises
    ------
    ArgumentError
        If the tensor has no such dimension, or `active` is not of its size, dtype and device.
    """
    shape = tensor.shape
    if not -len(shape) <= dim < len(shape):
        raise ArgumentError(
            f"a tensor of shape {list(shape)} has no dimension {dim}: name that of its units.",
            page="facts#which-units-are-dead",
        )
    if dim < 0:
        dim += len(shape)
    if active.shape != shape[dim : dim + 1] or active.dtype not in (torch.bool, torch.uint8):
        raise ArgumentError(
            f"the activity of {shape[dim]} units is a bool or uint8 tensor of that size, not {active.dtype} {list(active.shape)}.",
            page="facts#which-units-are-dead",
        )
    if tensor.is_cpu:
        return _mark_on_cpu(tensor, dim, active)
    return mark_by_operations(tensor, dim, active)


def use_marking(marking: Callable[[Tensor, int, Tensor], bool]) -> None:
    """Choose what marks the units of CPU tensors."""
    global _mark_on_cpu
    _mark_on_cpu = marking


@torch.no_grad()
def mark_by_operations(tensor: Tensor, dim: int, active: Tensor) -> bool:
    """Mark by torch's operations, of which none makes the host wait; `dim` is not negative."""
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor) or tensor.is_meta or tensor.is_nested:
        return False
    if tensor.layout is not torch.strided or type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return False
    if active.device != tensor.device:
        raise ArgumentError(
            f"the activity is on {active.device}, not on {tensor.device} like the tensor: put it there.",
            page="facts#which-units-are-dead",
        )
    x = tensor.detach()
    if type(x) is not Tensor:
        x = x.as_subclass(Tensor)
    if x.is_quantized:
        x = x.dequantize()
    if x.numel() == 0:
        return False
    magnitude = (x if x.dtype in _FLOATS else as_real(x)).abs()
    others = [d for d in range(x.dim()) if d != dim]
    if others:
        magnitude = magnitude.amax(others)  # NaN if there is one
    # not less, since NaN is less than nothing; and in a dtype that can hold the limit
    active.logical_or_(as_real(magnitude).lt(LEAST).logical_not_())
    return False


use_marking(mark_by_operations)
