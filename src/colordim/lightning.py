"""The histogram of every layer and batch of a training with PyTorch Lightning: a callback for its trainer."""

from colordim.errors import DependencyError

try:
    from colordim.integrations.lightning import ColorDim
except ModuleNotFoundError as error:
    raise DependencyError(
        'colordim.lightning needs PyTorch, which is not installed: pip install "colordim[lightning]".', page="lightning"
    ) from error

__all__ = ["ColorDim"]
