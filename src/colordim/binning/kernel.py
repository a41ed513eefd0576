"""Counting on the CPU by the compiled kernel: one pass over memory for the bins, the counters and the moments.

The kernel is a shared library with a plain C interface (``_kernel.c``): it knows neither Python nor torch, so that
one build serves every version of both. What it does not take goes to :mod:`colordim.binning.reference`: other
devices, and dtypes other than float32, float64, bfloat16 and float16.
"""

from __future__ import annotations

import ctypes
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.binning import reference, units
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

_INTERFACE = 2
_DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_PLAIN = (Tensor, torch.nn.Parameter)
_MAX_AXES = 256

# Numbers of 16 bits have their codes listed, in 128 KB, on linear axes with few enough bins for tables.
_HALVES = 1 << 16
_MAX_TABLE_BINS = 65_000


class KernelError(ColordimError, ImportError):
    """The compiled kernel is not there or cannot be loaded; the message says why."""


class _AxisStructure(ctypes.Structure):
    """What the library knows of an axis: ``struct axis``."""

    _fields_ = (
        ("bins", ctypes.c_int64),
        ("edges", ctypes.c_void_p),
        ("codes_of_halves", ctypes.c_void_p * 2),
        ("bits", ctypes.c_int32),
        ("min_exponent", ctypes.c_int32),
        ("per_sign", ctypes.c_int32),
    )


class _TargetStructure(ctypes.Structure):
    """Where counts go, and how they are taken: ``struct target``."""

    _fields_ = (
        ("axis", ctypes.c_void_p),
        ("row", ctypes.c_void_p),
        ("moments", ctypes.c_void_p),
        ("run", ctypes.c_void_p),
        ("level", ctypes.c_int32),
    )


class _KnownAxis:
    """An axis that the library was told of, kept alive together with what it was told."""

    __slots__ = ("axis", "lists", "structure")

    def __init__(self, axis: Axis) -> None:
        self.axis = axis
        self.lists: dict[int, Any] = {}  # by dtype
        if isinstance(axis, SignedLogAxis):
            self.structure = _AxisStructure(
                axis.bins, bits=axis.bits, min_exponent=axis.MIN_EXPONENT, per_sign=axis.per_sign
            )
        elif isinstance(axis, LinearAxis):
            self.structure = _AxisStructure(axis.bins, axis.edges.ctypes.data)
        else:
            raise TypeError(f"there is no way to count on {axis!r}.")

    def list_halves(self, dtype: int, encode: Any) -> None:
        """Have the codes of all numbers of a dtype of 16 bits listed, once."""
        codes = None
        if self.structure.edges and self.structure.bins <= _MAX_TABLE_BINS:
            codes = (ctypes.c_uint16 * _HALVES)()
            encode(ctypes.addressof(self.structure), dtype, ctypes.addressof(codes))
            self.structure.codes_of_halves[dtype - _DTYPES[torch.bfloat16]] = ctypes.addressof(codes)
        self.lists[dtype] = codes


class _Target:
    """What a row keeps of the kernel: where to count to, and what must live as long."""

    __slots__ = ("address", "axis", "kernel", "known", "structure")

    def __init__(self, kernel: Kernel, known: _KnownAxis, row: Row) -> None:
        self.kernel, self.known, self.axis = kernel, known, known.axis
        self.structure = _TargetStructure(
            ctypes.addressof(known.structure),
            row.counts.data_ptr(),
            row.moments.data_ptr(),
            kernel.run_in_threads,
            kernel.level,
        )
        self.address = ctypes.addressof(self.structure)


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
    level : int
        Index into :data:`LEVELS`.
    run_in_threads : int or None
        Address of the function by which torch's own threads are put to work.
    """

    def __init__(self, library: Path = LIBRARY, level: int | None = None, threads: int | None = None) -> None:
        if not library.exists():
            raise KernelError(f"the compiled kernel is missing: {_why_missing()}.", page="performance#the-kernel")
        try:
            releasing, holding = ctypes.CDLL(str(library)), ctypes.PyDLL(str(library))
            interface, best = int(releasing.colordim_interface()), int(releasing.colordim_best_level())
        except (OSError, AttributeError) as error:
            raise KernelError(
                f"the compiled kernel could not be loaded: {error}.", page="performance#the-kernel"
            ) from error
        if interface != _INTERFACE:
            raise KernelError(
                "the compiled kernel was left over from another version: install colordim again.",
                page="performance#the-kernel",
            )
        if level is None:
            level = best
        if not 0 <= level <= best:
            raise KernelError(
                f"this processor has no level {level}: take one of 0 to {best}.", page="performance#the-kernel"
            )
        self.level = level
        self._threads = threads
        self.run_in_threads = _torch_threads()
        # Large tensors are counted without the interpreter's lock. Small ones are done before another thread has
        # woken up, while getting the lock back from one could take milliseconds.
        self._count, self._count_strided = _functions(releasing)
        self._count_small, self._count_small_strided = _functions(holding)
        self._encode_halves = holding.colordim_encode_halves
        self._encode_halves.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
        # By identity, since hashing an axis costs as much as counting a small tensor; each is kept alive here, so that
        # its address does not become that of another.
        self._axes: dict[int, _KnownAxis] = {}
        self._mark, self._mark_small = _marking(releasing), _marking(holding)
        self.name = f"kernel, {LEVELS[level]}"
        built = BUILD_NOTE.read_text("utf-8").strip() if BUILD_NOTE.exists() and library == LIBRARY else "compiled"
        shared = "it shares torch's threads" if self.run_in_threads else "on one thread: torch's OpenMP was not found"
        self.note = f"{built}; {shared}."

    def bin_into(self, tensor: Tensor, axis: Axis, row: Row) -> bool:
        """Add every element of a tensor to the counters of a row, as :func:`colordim.binning.bin_into` does."""
        dtype = _DTYPES.get(tensor.dtype)
        if dtype is None:
            return reference.bin_into(tensor, axis, row)
        if type(tensor) not in _PLAIN or not tensor.is_cpu or tensor.is_neg():
            return self._bin_unusual(tensor, axis, row)
        try:
            data = tensor.data_ptr()
        except RuntimeError:  # no memory of its own: sparse, or inside a functorch transform
            return self._bin_unusual(tensor, axis, row)
        if not data:  # nothing, or zeros that torch only pretends to store
            return not tensor.numel() or reference.bin_into(tensor, axis, row)
        return self._bin_plain(tensor, data, dtype, axis, row)

    def _bin_plain(self, tensor: Tensor, data: int, dtype: int, axis: Axis, row: Row) -> bool:
        target: _Target | None = row.target
        if target is None or target.axis is not axis or target.kernel is not self:
            if not row.on_cpu:
                return reference.bin_into(tensor, axis, row)
            target = _Target(self, self._axes.get(id(axis)) or self._describe(axis), row)
            row.keep(target)
        if dtype > 1 and dtype not in target.known.lists:
            target.known.list_halves(dtype, self._encode_halves)
        n = tensor.numel()
        small = n < THREADS_FROM
        threads = self._threads or (1 if small else torch.get_num_threads())
        if tensor.is_contiguous():  # nested tensors too
            done = (self._count_small if small else self._count)(target.address, data, n, dtype, threads)
        elif tensor.is_nested:
            return self._bin_unusual(tensor, axis, row)
        else:
            sizes, strides = _merge_dimensions(tensor)
            dims = len(sizes)
            array = ctypes.c_int64 * dims
            count = self._count_small_strided if small else self._count_strided
            done = count(target.address, data, dims, array(*sizes), array(*strides), dtype, threads)
        return bool(done) or reference.bin_into(tensor, axis, row)  # not done: no memory, nothing changed

    def _bin_unusual(self, tensor: Tensor, axis: Axis, row: Row) -> bool:
        """Count subclasses, shards, sparse and nested tensors by the values that they store."""
        flat = flatten(tensor)
        if flat is None:
            return False
        values, implied_zeros = flat
        dtype = _DTYPES.get(values.dtype)
        data = values.data_ptr() if type(values) is Tensor and values.is_cpu else 0
        if dtype is None or implied_zeros or not data:
            return reference.bin_into(tensor, axis, row)
        return self._bin_plain(values, data, dtype, axis, row)

    def mark_active(self, tensor: Tensor, dim: int, active: Tensor) -> bool:
        """Set `active` for each unit that is active in a tensor, as :func:`colordim.binning.units.mark_active` does."""
        dtype = _DTYPES.get(tensor.dtype)
        if (
            dtype is None
            or type(tensor) not in _PLAIN
            or not (tensor.is_cpu and active.is_cpu and active.is_contiguous())
        ):
            return units.mark_by_operations(tensor, dim, active)
        try:
            data = tensor.data_ptr()
        except RuntimeError:  # sparse, or inside a functorch transform
            return units.mark_by_operations(tensor, dim, active)
        layout = _as_three_dimensions(tensor, dim) if data and not tensor.is_nested else None
        if layout is None:
            return units.mark_by_operations(tensor, dim, active)
        mark = self._mark_small if tensor.numel() < THREADS_FROM else self._mark
        return not mark(data, *layout, dtype, SignedLogAxis.MIN_EXPONENT, self.level, active.data_ptr())

    def _describe(self, axis: Axis) -> _KnownAxis:
        known = _KnownAxis(axis)
        if len(self._axes) >= _MAX_AXES:
            self._axes.clear()
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


def _as_three_dimensions(tensor: Tensor, dim: int) -> tuple[int, int, int] | None:
    """Return the sizes [outer, units, inner] in which dense memory lies, or None if it is not dense."""
    shape: tuple[int, ...] = tensor.shape
    if not tensor.is_contiguous():
        strides = tensor.stride()
        order = sorted(range(len(shape)), key=strides.__getitem__, reverse=True)
        if not tensor.permute(order).is_contiguous():
            return None
        shape, dim = tuple(shape[d] for d in order), order.index(dim)
    return math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])


def _functions(library: ctypes.CDLL) -> tuple[Any, Any]:
    address, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    count, strided = library.colordim_count, library.colordim_count_strided
    count.argtypes = [address, address, size, integer, integer]  # target, data, n, dtype, threads
    strided.argtypes = [address, address, integer, address, address, integer, integer]
    return count, strided


def _marking(library: ctypes.CDLL) -> Any:
    mark = library.colordim_mark_active
    mark.restype = ctypes.c_int64
    size, integer = ctypes.c_int64, ctypes.c_int
    # data, outer, units, inner, dtype, least exponent, level, active
    mark.argtypes = [ctypes.c_void_p, size, size, size, integer, integer, integer, ctypes.c_void_p]
    return mark


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
