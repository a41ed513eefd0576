"""Counting on the tensor's own device, in torch operations of which none makes the host wait.

Equal to :mod:`colordim.binning.reference`, which waits several times per tensor: it asks whether there was anything
that is not finite, and ``bincount`` asks for the largest code. Here every value, NaN and infinities included, gets a
slot by a search in the edges, and everything stays on the device.

A sparse tensor is the exception: how many values it stores is known to the device alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.binning.rows import Row
from colordim.binning.tensors import as_real, flatten
from colordim.column import COUNTERS
from colordim.errors import ArgumentError

__all__ = ["add_implied_zeros", "backend", "bin_into", "boundaries", "use_backend"]

UNDER, OVER, NAN, POS_INF, NEG_INF, ZEROS, SIZE, _ = range(len(COUNTERS))

# Elements handled at once: the temporaries of a chunk take about 150 MB, and its work hides the cost of the launches.
CHUNK = 1 << 22

# Slots before and behind the bins: -Inf and under; over, +Inf and NaN.
BEFORE, BEHIND = 2, 3

# torch.histc multiplies a code by the number of slots; earlier releases of torch did so in the codes' own dtype.
MOST_SLOTS_IN_INT32 = 46_340

# Earlier releases refuse to count even integers by torch.histc when only deterministic algorithms are allowed.
HISTC_IS_DETERMINISTIC = TorchVersion(torch.__version__) >= TorchVersion("2.8")

_count_cuda: Callable[[Tensor, Axis, Row], bool]
_backend: tuple[str, str]


def bin_into(tensor: Tensor, axis: Axis, row: Row) -> bool:
    """Add every element of a tensor to a row on its device, as :func:`colordim.binning.bin_into` does.

    A tensor that is being captured into a CUDA graph has no values yet: it is refused, like one without any.
    """
    if row.counts.is_cuda:
        if torch.cuda.is_current_stream_capturing():
            return False
        return _count_cuda(tensor, axis, row)
    return bin_by_operations(tensor, axis, row)


def backend() -> tuple[str, str]:
    """Return the name of what counts CUDA tensors, and a sentence on why that one."""
    return _backend


def use_backend(choice: str | None = None) -> None:
    """Choose what counts CUDA tensors in this process.

    Parameters
    ----------
    choice : {"torch", "triton"}, optional
        By default torch's operations. Without Triton, or where its kernel has no room for the bins of an axis, they
        count as well.

    Raises
    ------
    ArgumentError
        If there is no such backend.
    """
    global _count_cuda, _backend
    if choice not in (None, "torch", "triton"):
        raise ArgumentError(
            f"there is no backend {choice!r}: COLORDIM_CUDA may be torch or triton, or unset.", page="performance#gpu"
        )
    _count_cuda, _backend = bin_by_operations, ("torch operations", "the default; COLORDIM_CUDA=triton takes a kernel.")
    if choice == "triton":
        try:
            from colordim.binning.triton import bin_into as bin_by_kernel
        except ImportError as error:
            _backend = ("torch operations", f"the kernel was asked for, but Triton cannot be imported: {error}.")
        else:
            _count_cuda, _backend = bin_by_kernel, ("triton", "asked for, by COLORDIM_CUDA or in the program.")


@torch.no_grad()
def bin_by_operations(tensor: Tensor, axis: Axis, row: Row) -> bool:
    """Add every element of a tensor to a row, by torch's operations."""
    flat = flatten(tensor)
    if flat is None:
        return False
    values, implied_zeros = flat
    n = values.numel()
    for start in range(0, n, CHUNK):
        _count_chunk(as_real(values[start : start + CHUNK]).to(torch.float64), axis, row)
    if n:
        row.counts[axis.bins + SIZE].add_(n)
    if implied_zeros:
        add_implied_zeros(implied_zeros, axis, row)
    return True


def add_implied_zeros(zeros: int, axis: Axis, row: Row) -> None:
    """Count zeros that a sparse tensor does not store."""
    zero = axis.zero_bin
    slot = axis.bins + UNDER if zero < 0 else zero if zero < axis.bins else axis.bins + OVER
    for place in (slot, axis.bins + ZEROS, axis.bins + SIZE):
        row.counts[place].add_(zeros)
    row.moments[2].clamp_(max=0.0)
    row.moments[3].clamp_(min=0.0)


def _count_chunk(x: Tensor, axis: Axis, row: Row) -> None:
    slots = BEFORE + axis.bins + BEHIND
    # The search puts NaN behind every edge, where +Inf is as well: one further.
    code = torch.bucketize(x, boundaries(axis, x.device), out_int32=slots <= MOST_SLOTS_IN_INT32, right=True)
    histogram = _histogram(code.add_(x.isnan()), slots)
    row.counts[: axis.bins + ZEROS].add_(histogram.index_select(0, _order(axis, x.device)))
    row.counts[axis.bins + ZEROS].add_((x == 0).sum())

    # What is not finite is replaced by what changes nothing: choosing the rest would need its number on the host.
    finite = x.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    row.moments[0].add_(finite.sum())
    row.moments[1].add_(finite.square_().sum())
    torch.minimum(row.moments[2], _all_as(x, math.inf).amin(), out=row.moments[2])
    torch.maximum(row.moments[3], _all_as(x, -math.inf).amax(), out=row.moments[3])


def _all_as(x: Tensor, value: float) -> Tensor:
    return x.nan_to_num(nan=value, posinf=value, neginf=value)


def _histogram(code: Tensor, slots: int) -> Tensor:
    """Return how often each of the codes 0 ... `slots` - 1 occurs."""
    if code.is_cuda and (HISTC_IS_DETERMINISTIC or not torch.are_deterministic_algorithms_enabled()):
        # In memory that a block of threads shares, where many equal codes hold each other up least. Integers are
        # counted in their own dtype, of which a chunk cannot leave the range.
        return torch.histc(code, bins=slots, min=0, max=slots)
    counts = torch.zeros(slots, dtype=torch.int64, device=code.device)
    one = torch.ones(1, dtype=torch.int64, device=code.device)
    return counts.scatter_add_(0, code.to(torch.int64), one.expand(code.numel()))


@lru_cache(maxsize=64)
def boundaries(axis: Axis, device: torch.device) -> Tensor:
    """Return float64 numbers of which x is at or above as many as its slot says.

    Slot 0 is -Inf, 1 under, then the bins, then over, then +Inf. Bins whose right edge belongs to them begin just
    above their left one.
    """
    if isinstance(axis, SignedLogAxis):
        negative, positive = axis.edges[: axis.per_sign + 1], axis.edges[axis.per_sign + 1 :]
        # -2**24 is under already; on either side of the bucket of zero there are the smallest numbers of all.
        edges = [*np.nextafter(negative[:-1], np.inf), 0.0, math.ulp(0.0), *positive[1:]]
    elif isinstance(axis, LinearAxis):
        edges = [*axis.edges[:-1], np.nextafter(axis.hi, np.inf)]
    else:
        raise TypeError(f"there is no way to count on {axis!r}.")
    with torch.inference_mode(False):
        return torch.tensor([-np.finfo(np.float64).max, *edges, math.inf], dtype=torch.float64, device=device)


@lru_cache(maxsize=64)
def _order(axis: Axis, device: torch.device) -> Tensor:
    """Return for each place of a row, up to the zeros, its slot."""
    behind = BEFORE + axis.bins
    places = [*range(BEFORE, behind), 1, behind, behind + 2, behind + 1, 0]  # bins, under, over, NaN, +Inf, -Inf
    with torch.inference_mode(False):
        return torch.tensor(places, dtype=torch.int64, device=device)


use_backend(os.environ.get("COLORDIM_CUDA") or None)
