"""Drive a kernel library without torch and check its counts with NumPy: for builds with sanitizers.

Used by test_sanitizers.py in a process of its own: ``python drive_kernel.py LIBRARY``.
"""

import ctypes
import itertools
import math
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from colordim.axis import Axis, LinearAxis, SignedLogAxis

FLOAT32, FLOAT64, BFLOAT16, FLOAT16 = range(4)
STORED = {FLOAT32: np.float32, FLOAT64: np.float64, BFLOAT16: np.uint16, FLOAT16: np.float16}
Floats = npt.NDArray[np.float64]


class AxisStructure(ctypes.Structure):
    """As in kernel.py, which would import torch."""

    _fields_ = (
        ("bins", ctypes.c_int64),
        ("edges", ctypes.c_void_p),
        ("codes_of_halves", ctypes.c_void_p * 2),
        ("bits", ctypes.c_int32),
        ("min_exponent", ctypes.c_int32),
        ("per_sign", ctypes.c_int32),
    )


class TargetStructure(ctypes.Structure):
    """As in kernel.py."""

    _fields_ = (
        ("axis", ctypes.c_void_p),
        ("row", ctypes.c_void_p),
        ("moments", ctypes.c_void_p),
        ("run", ctypes.c_void_p),
        ("level", ctypes.c_int32),
    )


def describe(library: ctypes.CDLL, axis: Axis, dtype: int) -> tuple[AxisStructure, npt.NDArray[np.uint16]]:
    """Return what the library is to know of an axis, and the memory that this refers to."""
    listed = np.zeros(65536 if axis.bins <= 65_000 else 0, np.uint16)
    if isinstance(axis, SignedLogAxis):
        return AxisStructure(axis.bins, None, (None, None), axis.bits, axis.MIN_EXPONENT, axis.per_sign), listed
    structure = AxisStructure(axis.bins, axis.edges.ctypes.data)
    if dtype in (BFLOAT16, FLOAT16) and listed.size:
        library.colordim_encode_halves(ctypes.byref(structure), dtype, ctypes.c_void_p(listed.ctypes.data))
        structure.codes_of_halves[dtype - BFLOAT16] = listed.ctypes.data
    return structure, listed


def store(values: Floats, dtype: int) -> npt.NDArray[Any]:
    """Return exactly as many bytes as the values need, in memory of their own, so that a read beyond is noticed."""
    with np.errstate(over="ignore"):
        if dtype == BFLOAT16:
            return np.ascontiguousarray(values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return values.astype(STORED[dtype])


def as_values(stored: npt.NDArray[Any], dtype: int) -> Floats:
    if dtype == BFLOAT16:
        return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return stored.astype(np.float64)


def expected(values: Floats, axis: Axis) -> npt.NDArray[np.int64]:
    finite = values[np.isfinite(values)]
    edges = axis.edges
    code = np.searchsorted(edges, finite, side="right")
    if isinstance(axis, SignedLogAxis):  # its negative bins hold their right edge, the outermost excepted
        code = np.where(finite < 0, np.searchsorted(edges, finite, side="left"), code)
        code[finite == 0] = axis.zero_bin + 1
        code[np.abs(finite) >= edges[-1]] = np.where(finite[np.abs(finite) >= edges[-1]] < 0, 0, axis.bins + 1)
    else:
        code[finite == axis.edges[-1]] = axis.bins
    raw = np.bincount(code, minlength=axis.bins + 2)
    nan, pos_inf, neg_inf = np.isnan(values).sum(), np.isposinf(values).sum(), np.isneginf(values).sum()
    counters = [raw[0], raw[-1], nan, pos_inf, neg_inf, (values == 0).sum(), values.size, 0]
    return np.concatenate([raw[1:-1], counters]).astype(np.int64)


def drive(library: ctypes.CDLL, axis: Axis, stored: npt.NDArray[Any], dtype: int, level: int) -> None:
    row = np.zeros(axis.bins + 8, np.int64)
    moments = np.array([0.0, 0.0, math.inf, -math.inf])
    structure, _listed = describe(library, axis, dtype)
    target = TargetStructure(ctypes.addressof(structure), row.ctypes.data, moments.ctypes.data, None, level)
    tail = (dtype, 1)
    data = ctypes.c_void_p(stored.ctypes.data)
    if stored.flags.c_contiguous:
        done = library.colordim_count(ctypes.byref(target), data, ctypes.c_int64(stored.size), *tail)
    else:
        array = ctypes.c_int64 * stored.ndim
        strides = array(*(stride // stored.itemsize for stride in stored.strides))
        done = library.colordim_count_strided(
            ctypes.byref(target), data, stored.ndim, array(*stored.shape), strides, *tail
        )
    assert done == 1
    values = as_values(stored.reshape(-1), dtype)
    finite = values[np.isfinite(values)]
    np.testing.assert_array_equal(row, expected(values, axis))
    assert moments[2:].tolist() == [finite.min(initial=math.inf), finite.max(initial=-math.inf)]
    total = np.abs(finite).sum()
    if math.isfinite(total):
        assert abs(moments[0] - math.fsum(finite)) <= 1e-12 * total + 1e-300


def drive_units(library: ctypes.CDLL, values: Floats, dim: int, dtype: int, level: int) -> None:
    stored = store(values, dtype)
    active = np.zeros(values.shape[dim], np.uint8)
    outer, units, inner = math.prod(values.shape[:dim]), values.shape[dim], math.prod(values.shape[dim + 1 :])
    library.colordim_mark_active.restype = ctypes.c_int64
    left = library.colordim_mark_active(
        ctypes.c_void_p(stored.ctypes.data),
        *map(ctypes.c_int64, (outer, units, inner)),
        *(dtype, SignedLogAxis.MIN_EXPONENT, level, ctypes.c_void_p(active.ctypes.data)),
    )
    flat = np.moveaxis(as_values(stored, dtype), dim, 0).reshape(units, -1)
    np.testing.assert_array_equal(active, ((np.abs(flat) >= 2.0**-40) | np.isnan(flat)).any(axis=1))
    assert left == units - active.sum()


def tricky(axis: Axis, n: int, rng: np.random.Generator) -> Floats:
    pool = np.concatenate(
        [
            rng.normal(scale=4, size=50),
            rng.normal(scale=10.0 ** rng.uniform(-14, 9), size=20),
            rng.choice(axis.edges, size=40),
            [0.0, -0.0, 1e-46, 5e-324, -5e-324, 1e39, -1e300, 2.0**24, 1e-40, 65504.0, 6e-8],
        ]
    )
    x = rng.choice(pool, size=n)
    return np.where(rng.random(n) < 0.001, rng.choice([np.nan, np.inf, -np.inf], size=n), x)


def main(path: str) -> None:
    library = ctypes.CDLL(path)
    rng = np.random.default_rng(1)
    axes: list[Axis] = [SignedLogAxis(bits) for bits in (0, 3, 8)]
    axes += [
        LinearAxis(-10, 10, 200),
        LinearAxis(0.1, 0.7, 13),
        LinearAxis(1e6, 1e6 + 1, 1000),
        LinearAxis(0, 1, 70_000),
    ]
    levels = range(library.colordim_best_level() + 1)
    checked = 0
    for axis, dtype, level in itertools.product(axes, STORED, levels):
        for n in (1, 63, 64, 65, 2047, 2048, 2049, 5000, 6 * 2048):
            drive(library, axis, store(tricky(axis, n, rng), dtype), dtype, level)
            checked += 1
        images = store(tricky(axis, 12_000, rng), dtype).reshape(4, 3, 25, 40)
        rows = images.reshape(5, 2400)[:, 353:]  # a run is one value shorter than a block, the last one ends the memory
        for view in (
            images[:, 1:, ::2, 3:],
            images[:, :, :, 5],
            images[1:].transpose(3, 1, 0, 2),
            images[:, ::2],
            rows,
        ):
            drive(library, axis, view, dtype, level)
            checked += 1
        drive(library, axis, store(np.full(3000, np.nan), dtype), dtype, level)
    for dtype, level, shape in itertools.product(STORED, levels, [(3, 5, 7), (40, 1030), (2, 3, 700), (1, 64, 1)]):
        values = np.where(rng.random(shape) < 0.01, rng.choice([np.nan, np.inf, 1.0, -6e-8], shape), -0.0)
        for dim in range(len(shape)):
            drive_units(library, values, dim, dtype, level)
            checked += 1
    sys.stdout.write(f"{checked} arrays counted\n")


if __name__ == "__main__":
    main(sys.argv[1])
