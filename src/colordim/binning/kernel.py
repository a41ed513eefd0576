"""Counting on the CPU by the compiled kernel: one pass over memory for the bins, the counters and the moments.

The kernel is a shared library with a plain C interface (``_kernel.c``): it knows neither Python nor torch, so that
one build serves every version of both. What it does not take goes to :mod:`colordim.binning.reference`: other
devices, and dtypes other than float32, float64, bfloat16 and float16.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.binning import reference
from colordim.binning.rows import Row
from colordim.binning.tensors import flatten
from colordim.errors import ColordimError

__all__ = ["LEVELS", "LIBRARY", "Kernel", "KernelError"]

_SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")

#: Where the build leaves the library, and beside it a sentence on how it was built or why it was not.
LIBRARY = Path(__file__).with_name("_kernel" + _SUFFIX)
BUILD_NOTE = Path(__file__).with_name("_kernel.txt")

#: Processor levels that the library is compiled for, by number.
LEVELS = ("baseline", "AVX2", "AVX-512")

#: Elements from which several threads are worth their handshake.
THREADS_FROM = 1 << 15

_INTERFACE = 1
_DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_PLAIN = (Tensor, torch.nn.Parameter)
_MAX_AXES = 256
_MAX_DIMS = 64


class KernelError(ColordimError, ImportError):
    """The compiled kernel is not there or cannot be loaded; the message says why."""


class _AxisStructure(ctypes.Structure):
    """What the library knows of an axis: ``struct axis``."""

    _fields_ = (
        ("bins", ctypes.c_int64),
        ("edges", ctypes.c_void_p),
        ("bits", ctypes.c_int32),
        ("min_exponent", ctypes.c_int32),
        ("per_sign", ctypes.c_int32),
    )


class Kernel:
    """The loaded library.

    Parameters
    ----------
    library : path, optional
        Of the shared library; by default the one that was built with the package.
    level : int, optional
        Index into :data:`LEVELS`; by default the best that this processor has.
    threads : int, optional
        For tensors of any size; by default as many as torch uses, from :data:`THREADS_FROM` elements up.

    Raises
    ------
    KernelError
        If the library is missing, cannot be loaded, or is of another version.

    Attributes
    ----------
    name : str
        For people: "kernel, AVX2".
    note : str
        A sentence on how it was built and on its threads.
    """

    def __init__(self, library: Path = LIBRARY, level: int | None = None, threads: int | None = None) -> None:
        if not library.exists():
            raise KernelError(f"the compiled kernel is missing: {_why_missing()}.")
        try:
            releasing, holding = ctypes.CDLL(str(library)), ctypes.PyDLL(str(library))
            interface, best = int(releasing.colordim_interface()), int(releasing.colordim_best_level())
        except (OSError, AttributeError) as error:
            raise KernelError(f"the compiled kernel could not be loaded: {error}.") from error
        if interface != _INTERFACE:
            raise KernelError("the compiled kernel was left over from another version: install colordim again.")
        if level is None:
            level = best
        if not 0 <= level <= best:
            raise KernelError(f"this processor has no level {level}: take one of 0 to {best}.")
        self.level = level
        self._threads = threads
        self._run_in_threads = _torch_threads()
        # Large tensors are counted without the interpreter's lock. Small ones are done before another thread has
        # woken up, while getting the lock back from one could take milliseconds.
        self._count, self._count_strided = _functions(releasing)
        self._count_small, _ = _functions(holding)
        # By identity, since hashing an axis costs as much as counting a small tensor; each is kept alive here, so that
        # its address does not become that of another.
        self._axes: dict[int, tuple[Axis, _AxisStructure, int]] = {}
        self.name = f"kernel, {LEVELS[level]}"
        built = BUILD_NOTE.read_text("utf-8").strip() if BUILD_NOTE.exists() and library == LIBRARY else "compiled"
        shared = "it shares torch's threads" if self._run_in_threads else "on one thread: torch's OpenMP was not found"
        self.note = f"{built}; {shared}."

    def bin_into(self, tensor: Tensor, axis: Axis, row: Row) -> bool:
        """Add every element of a tensor to the counters of a row, as :func:`colordim.binning.bin_into` does."""
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None or is_functorch_wrapped_tensor(tensor) or not row.counts.is_cpu:
            return reference.bin_into(tensor, axis, row)
        if (
            type(tensor) not in _PLAIN
            or not tensor.is_cpu
            or tensor.layout is not torch.strided
            or tensor.is_nested
            or tensor.is_neg()
        ):
            return self._bin_unusual(tensor, axis, row)
        return self._bin_plain(tensor, dtype, axis, row)

    def _bin_plain(self, tensor: Tensor, dtype: int, axis: Axis, row: Row) -> bool:
        n = tensor.numel()
        if n == 0:
            return True
        data = tensor.data_ptr()
        if not data:  # zeros that torch only pretends to store
            return reference.bin_into(tensor, axis, row)
        known = self._axes.get(id(axis))
        if known is None:
            known = self._describe(axis)
        counts, moments = row.counts.data_ptr(), row.moments.data_ptr()
        if n < THREADS_FROM:
            count, threads = self._count_small, self._threads or 1
        else:
            count, threads = self._count, self._threads or torch.get_num_threads()
        level, run = self.level, self._run_in_threads
        if tensor.is_contiguous():
            done = count(known[2], data, n, dtype, level, threads, run, counts, moments)
        else:
            sizes, strides = _merge_dimensions(tensor)
            dims = len(sizes)
            if dims == 1 and strides == [1]:
                done = count(known[2], data, n, dtype, level, threads, run, counts, moments)
            else:
                array = ctypes.c_int64 * dims
                sizes_c, strides_c = array(*sizes), array(*strides)
                done = self._count_strided(
                    known[2], data, dims, sizes_c, strides_c, dtype, level, threads, run, counts, moments
                )
        return bool(done) or reference.bin_into(tensor, axis, row)  # not done: no memory, nothing changed

    def _bin_unusual(self, tensor: Tensor, axis: Axis, row: Row) -> bool:
        """Count subclasses, shards, sparse and nested tensors by the values that they store."""
        flat = flatten(tensor)
        if flat is None:
            return False
        values, implied_zeros = flat
        dtype = _DTYPES.get(values.dtype)
        if dtype is None or implied_zeros or type(values) is not Tensor or not values.is_cpu:
            return reference.bin_into(tensor, axis, row)
        return self._bin_plain(values, dtype, axis, row)

    def _describe(self, axis: Axis) -> tuple[Axis, _AxisStructure, int]:
        if isinstance(axis, SignedLogAxis):
            structure = _AxisStructure(axis.bins, None, axis.bits, axis.MIN_EXPONENT, axis.per_sign)
        elif isinstance(axis, LinearAxis):
            structure = _AxisStructure(axis.bins, axis.edges.ctypes.data)
        else:
            raise TypeError(f"there is no way to count on {axis!r}.")
        if len(self._axes) >= _MAX_AXES:
            self._axes.clear()
        known = axis, structure, ctypes.addressof(structure)
        self._axes[id(axis)] = known
        return known


def _merge_dimensions(tensor: Tensor) -> tuple[list[int], list[int]]:
    """Return sizes and strides of as few dimensions as possible, the innermost last; order does not matter here."""
    by_stride = sorted(
        ((stride, size) for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size != 1), reverse=True
    )
    sizes: list[int] = []
    strides: list[int] = []
    for stride, size in by_stride:
        if sizes and strides[-1] == stride * size:
            sizes[-1] *= size
            strides[-1] = stride
        else:
            sizes.append(size)
            strides.append(stride)
    return (sizes, strides) if sizes else ([1], [1])


def _functions(library: ctypes.CDLL) -> tuple[Any, Any]:
    address, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    count, strided = library.colordim_count, library.colordim_count_strided
    behind: list[Any] = [
        integer,
        integer,
        integer,
        address,
        address,
        address,
    ]  # dtype, level, threads, run, row, moments
    count.argtypes = [address, address, size, *behind]
    strided.argtypes = [address, address, integer, address, address, *behind]
    return count, strided


def _torch_threads() -> int | None:
    """Return the address of the function that starts threads in the OpenMP library that torch itself is linked with.

    A second OpenMP library, the system's or one of our own, would keep a second pool of threads, and both would
    spin on the same processors.
    """
    name = {"darwin": "libtorch_cpu.dylib"}.get(sys.platform, "libtorch_cpu.so")
    try:
        torch_cpu = ctypes.CDLL(
            str(Path(torch.__file__).parent / "lib" / name)
        )  # loaded already; finds its libraries too
        return ctypes.cast(torch_cpu.GOMP_parallel, ctypes.c_void_p).value
    except (OSError, AttributeError):
        return None


def _why_missing() -> str:
    if BUILD_NOTE.exists():
        return BUILD_NOTE.read_text("utf-8").strip()
    return "colordim runs from a source tree where it was not built, which `python hatch_build.py` does"
