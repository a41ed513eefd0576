"""The counters of one stream in one batch, on the tensor's own device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from colordim.axis import Axis
from colordim.column import COUNTERS, NO_MOMENTS

__all__ = ["Row", "no_moments"]


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

    def take(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the counters and moments as arrays of their own, and set the row back to nothing counted.

        For a row on the CPU.
        """
        # Through NumPy, whose small operations cost a fraction of torch's.
        counts, moments = self.counts.numpy(), self.moments.numpy()
        taken = counts.copy(), moments.copy()
        counts.fill(0)
        moments[:] = NO_MOMENTS
        return taken

    def clear(self) -> None:
        """Set everything back to nothing counted."""
        self.counts.zero_()
        self.moments.copy_(no_moments(self.moments.device))


@lru_cache(maxsize=64)
def no_moments(device: torch.device) -> Tensor:
    """Return the moments of no value, on the device, where they are copied from without waiting; not to be changed."""
    with torch.inference_mode(False):
        return torch.tensor(NO_MOMENTS, dtype=torch.float64, device=device)
