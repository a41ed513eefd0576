"""Counting on a CUDA device by one fused Triton kernel: the bins, the counters and the moments in one pass.

Every program has a histogram of its own and adds it to the row once, in integers, so that no order matters. The sums of
the programs are added up by a second, tiny kernel in a fixed order, so that the moments are the same in every run.
What the kernel does not take goes to :mod:`colordim.binning.device`: axes with more than :data:`MOST_SLOTS` slots.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from colordim.axis import Axis, SignedLogAxis
from colordim.binning import device
from colordim.binning.rows import Row
from colordim.binning.tensors import as_real, flatten

__all__ = ["MOST_SLOTS", "bin_into"]

#: Slots of the histogram that a program holds: the bins, under, over, NaN, the infinities, and one for no element.
MOST_SLOTS = 4096

# Elements that a program takes at a time, and the most programs: their sums are added up by a single one.
BLOCK = 1024
MOST_PROGRAMS = 1024

# Elements of one launch, so that no place and no count leaves the range of int32.
MOST_ELEMENTS = 1 << 30

#: What the kernel reads without a conversion, and as what.
KINDS = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.float16: "float32",
    torch.bfloat16: "bfloat16",
}

# Places of the counters in a row, behind the bins.
_ZEROS, _SIZE = tl.constexpr(5), tl.constexpr(6)


@triton.jit
def _count(
    values,
    n,
    edges,
    row,
    partial,
    bins: tl.constexpr,
    bits: tl.constexpr,
    min_exponent: tl.constexpr,
    steps: tl.constexpr,
    kind: tl.constexpr,
    slots: tl.constexpr,
    block: tl.constexpr,
):
    """Count `n` values into a row; `bits` is -1 for an axis whose bins are searched in `edges`."""
    program = tl.program_id(0)
    programs = tl.num_programs(0)
    within = tl.arange(0, block)
    histogram = tl.zeros([slots], tl.int32)
    zeros = tl.zeros([block], tl.int32)
    total = tl.zeros([block], tl.float64)
    squares = tl.zeros([block], tl.float64)
    low = tl.full([block], float("inf"), tl.float64)
    high = tl.full([block], float("-inf"), tl.float64)
    for start in range(program * block, n, programs * block):
        place = start + within
        inside = place < n
        loaded = tl.load(values + place, mask=inside, other=0)
        # The bits decide what is zero, NaN or infinite: comparing could flush subnormals to zero.
        if kind == "float64":
            number = loaded
            pattern = loaded.to(tl.int64, bitcast=True)
            magnitude = pattern & 0x7FFFFFFFFFFFFFFF
            largest = 0x7FF0000000000000
        else:
            if kind == "bfloat16":  # read as integers: the upper half of a float32
                pattern = loaded.to(tl.int32) << 16
                number = pattern.to(tl.float32, bitcast=True)
            else:
                number = loaded.to(tl.float32)
                pattern = number.to(tl.int32, bitcast=True)
            magnitude = pattern & 0x7FFFFFFF
            largest = 0x7F800000
        negative = pattern < 0
        zero = magnitude == 0
        x = number.to(tl.float64)
        # Places as in a row: the bins, under, over, NaN, +Inf, -Inf.
        if bits >= 0:
            per_sign: tl.constexpr = (bins - 1) // 2
            if kind == "float64":
                bucket = (magnitude >> (52 - bits)) - ((1023 + min_exponent) << bits)
            else:
                bucket = (magnitude >> (23 - bits)) - ((127 + min_exponent) << bits)
            beyond = bucket >= per_sign
            bucket = tl.maximum(bucket, 0).to(tl.int32)
            code = tl.where(negative, per_sign - 1 - bucket, per_sign + 1 + bucket)
            code = tl.where(beyond, tl.where(negative, bins, bins + 1), code)
            code = tl.where(zero, per_sign, code)
        else:
            # How many edges are at or below x: of the last ones, one is just above the axis, so that its right edge
            # lies inside the last bin.
            below = tl.zeros([block], tl.int32)
            for step in tl.static_range(steps):
                candidate = below + (1 << (steps - 1 - step))
                edge = tl.load(edges + candidate - 1, mask=candidate <= bins + 1, other=float("inf"))
                below = tl.where((candidate <= bins + 1) & (edge <= x), candidate, below)
            code = tl.where(below == 0, bins, tl.where(below == bins + 1, bins + 1, below - 1))
        code = tl.where(magnitude == largest, tl.where(negative, bins + 4, bins + 3), code)
        code = tl.where(magnitude > largest, bins + 2, code)
        code = tl.where(inside, code, slots - 1)
        histogram += tl.histogram(code, slots)
        zeros += (inside & zero).to(tl.int32)
        finite = inside & (magnitude < largest)
        kept = tl.where(finite, x, 0.0)
        total += kept
        squares += kept * kept
        low = tl.minimum(low, tl.where(finite, x, float("inf")))
        high = tl.maximum(high, tl.where(finite, x, float("-inf")))
    slot = tl.arange(0, slots)
    tl.atomic_add(row + slot, histogram.to(tl.int64), mask=(slot < bins + _ZEROS) & (histogram > 0))
    tl.atomic_add(row + bins + _ZEROS, tl.sum(zeros, 0).to(tl.int64))
    if program == 0:
        tl.atomic_add(row + bins + _SIZE, tl.zeros([], tl.int64) + n)
    tl.store(partial + program, tl.sum(total, 0))
    tl.store(partial + programs + program, tl.sum(squares, 0))
    tl.store(partial + 2 * programs + program, tl.min(low, 0))
    tl.store(partial + 3 * programs + program, tl.max(high, 0))


@triton.jit
def _add_moments(partial, programs, moments, width: tl.constexpr):
    """Add the sums of all programs to the moments of a row."""
    program = tl.arange(0, width)
    there = program < programs
    total = tl.sum(tl.load(partial + program, mask=there, other=0.0), 0)
    squares = tl.sum(tl.load(partial + programs + program, mask=there, other=0.0), 0)
    low = tl.min(tl.load(partial + 2 * programs + program, mask=there, other=float("inf")), 0)
    high = tl.max(tl.load(partial + 3 * programs + program, mask=there, other=float("-inf")), 0)
    tl.store(moments, tl.load(moments) + total)
    tl.store(moments + 1, tl.load(moments + 1) + squares)
    tl.store(moments + 2, tl.minimum(tl.load(moments + 2), low))
    tl.store(moments + 3, tl.maximum(tl.load(moments + 3), high))


@torch.no_grad()
def bin_into(tensor: Tensor, axis: Axis, row: Row) -> bool:
    """Add every element of a tensor to a row on its device, as :func:`colordim.binning.bin_into` does."""
    if axis.bins + 6 > MOST_SLOTS:
        return device.bin_by_operations(tensor, axis, row)
    flat = flatten(tensor)
    if flat is None:
        return False
    values, implied_zeros = flat
    with torch.cuda.device_of(values):  # Triton launches on the current device, whatever the tensors are on
        # What Triton does not read becomes a temporary of bounded size.
        piece = MOST_ELEMENTS if values.dtype in KINDS else device.CHUNK
        for start in range(0, values.numel(), piece):
            part = values[start : start + piece]
            _launch(part if part.dtype in KINDS else as_real(part), axis, row)
        if implied_zeros:
            device.add_implied_zeros(implied_zeros, axis, row)
    return True


def _launch(values: Tensor, axis: Axis, row: Row) -> None:
    n = values.numel()
    programs = min(triton.cdiv(n, BLOCK), MOST_PROGRAMS)
    partial = torch.empty(4 * programs, dtype=torch.float64, device=values.device)
    edges = device.boundaries(axis, values.device)[1:]
    kind = KINDS[values.dtype]
    if kind == "bfloat16":
        values = values.view(torch.int16)
    _count[(programs,)](values, n, edges, row.counts, partial, **constants(axis), kind=kind, block=BLOCK)
    _add_moments[(1,)](partial, programs, row.moments, width=MOST_PROGRAMS)


@lru_cache(maxsize=64)
def constants(axis: Axis) -> dict[str, Any]:
    """Return what a kernel is compiled for."""
    bins = axis.bins
    return {
        "bins": bins,
        "bits": axis.bits if isinstance(axis, SignedLogAxis) else -1,
        "min_exponent": SignedLogAxis.MIN_EXPONENT,
        "steps": (bins + 1).bit_length(),
        "slots": max(triton.next_power_of_2(bins + 6), 128),
    }
