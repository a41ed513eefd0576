"""The counters of one stream in one batch, on the tensor's own device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from colordim.axis import Axis
from colordim.column import COUNTERS, NO_MOMENTS

__all__ = ["Row"]


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
            return cls(counts, torch.tensor(NO_MOMENTS, dtype=torch.float64, device=device))

    def clear(self) -> None:
        """Set everything back to nothing counted."""
        self.counts.zero_()
        self.moments[:2] = 0.0
        self.moments[2] = float("inf")
        self.moments[3] = float("-inf")
