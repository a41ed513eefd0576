"""The histogram of every layer and batch of a training with PyTorch Lightning: a callback for its trainer."""

from colordim.integrations.lightning import ColorDim

__all__ = ["ColorDim"]
