"""From a tensor to counts and moments, in place."""

from colordim.binning.reference import bin_into
from colordim.binning.rows import Row

__all__ = ["Row", "bin_into"]
