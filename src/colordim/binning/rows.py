"""The counters of one stream in one batch, on the tensor's own device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from colordim.axis import Axis
from colordim.column import COUNTERS, NO_MOMENTS

__all__ = ["Row", "no_moments"]

_NOTHING = np.array(NO_MOMENTS)
_CALLS = COUNTERS.index("calls") - len(COUNTERS)


@dataclass(frozen=True)
class Row:
    """Counters that binning adds to, in place.

    Attributes
    ----------
    counts : Tensor of int64, shape ``[bins + 8]``
        The bins, then :data:`colordim.column.COUNTERS`.
    moments : Tensor of float64, shape ``[4]``
        :data:`colordim.column.MOMENTS`.
    """

    counts: Tensor
    moments: Tensor

    #: What the backend that counts into this row keeps with it, above all the addresses of its memory.
    target: ClassVar[Any] = None

    def __reduce__(self) -> tuple[type[Row], tuple[Tensor, Tensor]]:
        """Leave what is derived from the memory of this row out of its copies."""
        return Row, (self.counts, self.moments)

    @classmethod
    def new(cls, axis: Axis, device: torch.device) -> Row:
        """Return an empty row for tensors of `device`.

        It lies on the CPU for devices without float64 (MPS).
        """
        if device.type == "mps":
            device = torch.device("cpu")
        # Inference mode would make tensors that later training batches could not add to.
        with torch.inference_mode(False), torch.no_grad():
            counts = torch.zeros(axis.bins + len(COUNTERS), dtype=torch.int64, device=device)
            return cls(counts, no_moments(device).clone())

    @classmethod
    def together(cls, axes: Sequence[Axis]) -> tuple[list[Row], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return empty rows on the CPU that lie one after the other in memory, and that memory.

        Returns
        -------
        rows : list of Row, one for each axis
        counts : ndarray of int64, shape ``[sum of bins + 8]``
        moments : ndarray of float64, shape ``[axes, 4]``
        """
        widths = [axis.bins + len(COUNTERS) for axis in axes]
        counts, moments = np.zeros(sum(widths), np.int64), np.tile(_NOTHING, (len(axes), 1))
        with torch.inference_mode(False), torch.no_grad():
            pieces = torch.split(torch.from_numpy(counts), widths) if axes else ()
            rows = [cls(piece, each) for piece, each in zip(pieces, torch.from_numpy(moments), strict=True)]
        return rows, counts, moments

    def add_call(self) -> None:
        """Count one more call of the module."""
        if self._arrays:
            self._arrays[0][_CALLS] += 1
        else:
            self.counts[_CALLS].add_(1)

    def peek(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the counters and moments as arrays; on the CPU they are the row itself, until it is cleared."""
        return self._arrays or (self.counts.cpu().numpy(), self.moments.cpu().numpy())

    def clear(self) -> None:
        """Set everything back to nothing counted."""
        if self._arrays:
            counts, moments = self._arrays
            counts.fill(0)
            moments[:] = _NOTHING
        else:
            self.counts.zero_()
            self.moments.copy_(no_moments(self.moments.device))

    @cached_property
    def on_cpu(self) -> bool:
        """Whether it lies in the memory of the CPU; kept, since torch is slow to answer."""
        return self.counts.is_cpu

    def keep(self, target: Any) -> None:
        """Set what a backend keeps with this row."""
        object.__setattr__(self, "target", target)

    @cached_property
    def _arrays(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]] | None:
        # Through NumPy, and made once: its small operations cost a fraction of torch's.
        return (self.counts.numpy(), self.moments.numpy()) if self.on_cpu else None


@lru_cache(maxsize=64)
def no_moments(device: torch.device) -> Tensor:
    """Return the moments of no value, on the device, where they are copied from without waiting; not to be changed."""
    with torch.inference_mode(False):
        return torch.tensor(NO_MOMENTS, dtype=torch.float64, device=device)
