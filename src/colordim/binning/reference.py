"""The definition of counting, in plain torch operations. Every other backend must equal it.

Counts are int64 throughout: ``torch.histc`` counts in the dtype of its input, which stops at 256
for bfloat16, at 2048 for float16 and at 2**24 for float32.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.binning.rows import Row
from colordim.binning.tensors import as_real, flatten
from colordim.column import COUNTERS

__all__ = ["bin_into"]

# Positions of the counters behind the bins.
UNDER, OVER, NAN, POS_INF, NEG_INF, ZEROS, SIZE, _ = range(len(COUNTERS))

# Elements handled at once: temporaries stay in the processor's cache, and no operation is large enough for torch to
# start its threads, whose handshake costs more than it saves when training keeps all processors busy.
CHUNK = 1 << 15


@torch.no_grad()
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
    flat = flatten(tensor)
    if flat is None:
        return False
    values, implied_zeros = flat
    if values.device != row.counts.device:
        values = values.to(row.counts.device)
    counters = row.counts[axis.bins :]
    for start in range(0, values.numel(), CHUNK):
        real = as_real(values[start : start + CHUNK])
        if isinstance(axis, SignedLogAxis):
            _count_signed_log(real, axis, row.counts)
        elif isinstance(axis, LinearAxis):
            _count_linear(real, axis, row.counts)
        else:
            raise TypeError(f"there is no way to count on {axis!r}.")
        _add_moments(real.to(torch.float64), row.moments)
    counters[SIZE] += values.numel() + implied_zeros
    if implied_zeros:
        row.counts[_zero_slot(axis)] += implied_zeros
        counters[ZEROS] += implied_zeros
        row.moments[2].clamp_(max=0.0)
        row.moments[3].clamp_(min=0.0)
    return True


def _count_linear(real: Tensor, axis: LinearAxis, counts: Tensor) -> None:
    bins = axis.bins
    counters = counts[bins:]
    x = real.to(torch.float64).contiguous()
    # Code 0 is below the first edge, 1 ... bins are the bins, bins + 1 is at or above the last edge or NaN.
    code = torch.bucketize(x, _edges(axis, x.device), right=True)
    raw = torch.bincount(code, minlength=bins + 2)
    counts[:bins] += raw[1 : bins + 1]
    below, above = raw[0], raw[bins + 1]
    if int(above) or int(below):
        on_right_edge = (x == axis.hi).sum()
        nan, pos_inf, neg_inf = _count_nonfinite(x, counters)
        counts[bins - 1] += on_right_edge
        counters[UNDER] += below - neg_inf
        counters[OVER] += above - on_right_edge - nan - pos_inf
    # By their bits without the sign: a processor that flushes subnormals calls them equal to zero.
    pattern = real.view(torch.int32 if real.dtype == torch.float32 else torch.int64)
    counters[ZEROS] += real.numel() - torch.count_nonzero(pattern << 1)


def _count_signed_log(real: Tensor, axis: SignedLogAxis, counts: Tensor) -> None:
    counters = counts[axis.bins :]
    integer, mantissa_bits, exponent_bits = (
        (torch.int32, 23, 8) if real.dtype == torch.float32 else (torch.int64, 52, 11)
    )
    pattern = real.view(integer)
    # Sign, exponent and leading mantissa bits as a number: an arithmetic shift, then an offset to make it >= 0.
    half = 1 << (exponent_bits + axis.bits)
    code = (pattern >> (mantissa_bits - axis.bits)) + half
    raw = torch.bincount(code, minlength=2 * half)
    # Two codes of each sign hold more than one thing. Zeros lie with subnormals; they are told apart by their bits,
    # since a processor that flushes subnormals calls them equal to zero.
    positive_zeros = pattern.numel() - int(torch.count_nonzero(pattern))
    negative_zeros = int((pattern == torch.iinfo(integer).min).sum()) if int(raw[0]) else 0
    raw[0] -= negative_zeros
    raw[half] -= positive_zeros
    # NaN and infinities share the largest exponent.
    largest = ((1 << exponent_bits) - 1) << axis.bits
    negative, positive = raw[largest:half], raw[half + largest :]
    if int(negative.sum() + positive.sum()):
        _count_nonfinite(real, counters)
        negative.zero_()
        positive.zero_()
    counts.index_add_(0, _targets(axis, mantissa_bits, exponent_bits, real.device), raw)
    counts[axis.per_sign] += positive_zeros + negative_zeros
    counters[ZEROS] += positive_zeros + negative_zeros


def _count_nonfinite(real: Tensor, counters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    nan, pos_inf, neg_inf = real.isnan().sum(), (real == float("inf")).sum(), (real == float("-inf")).sum()
    counters[NAN] += nan
    counters[POS_INF] += pos_inf
    counters[NEG_INF] += neg_inf
    return nan, pos_inf, neg_inf


def _add_moments(x: Tensor, moments: Tensor) -> None:
    total = x.sum()
    if not bool(total.isfinite()):
        x = x[x.isfinite()]
        total = x.sum()
    if x.numel() == 0:
        return
    low, high = x.aminmax()
    moments[0] += total
    moments[1] += x.dot(x)
    moments[2] = torch.minimum(moments[2], low)
    moments[3] = torch.maximum(moments[3], high)


def _zero_slot(axis: Axis) -> int:
    zero = axis.zero_bin
    if zero < 0:
        return axis.bins + UNDER
    return zero if zero < axis.bins else axis.bins + OVER


@lru_cache(maxsize=64)
def _edges(axis: LinearAxis, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(axis.edges, dtype=torch.float64, device=device)


@lru_cache(maxsize=64)
def _targets(axis: SignedLogAxis, mantissa_bits: int, exponent_bits: int, device: torch.device) -> Tensor:
    """Return for each code of sign, exponent and leading mantissa bits the place in a row that it counts to."""
    with torch.inference_mode(False):
        bias = (1 << (exponent_bits - 1)) - 1
        magnitude = torch.arange(1 << (exponent_bits + axis.bits), dtype=torch.int64, device="cpu")
        bucket = magnitude - ((bias + axis.MIN_EXPONENT) << axis.bits)
        inside = bucket < axis.per_sign
        bucket = bucket.clamp(min=0)  # smaller than the smallest exponent: the innermost bucket
        negative = torch.where(inside, axis.per_sign - 1 - bucket, axis.bins + UNDER)
        positive = torch.where(inside, axis.per_sign + 1 + bucket, axis.bins + OVER)
        return torch.cat([negative, positive]).to(device)
