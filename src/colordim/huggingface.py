"""Hugging Face: :class:`ColorDimCallback` records what a ``Trainer`` trains (docs/huggingface.md)."""

from colordim.integrations.huggingface import ColorDimCallback

__all__ = ["ColorDimCallback"]
