"""Gradients without the factor that a GradScaler puts on the loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from colordim.errors import ArgumentError

__all__ = ["Scale", "divided"]


class Scale:
    """The scale that a GradScaler has at the moment.

    Parameters
    ----------
    scaler : torch.amp.GradScaler or None
        Anything with its ``get_scale()``; None means that nothing is known of a scale.

    Raises
    ------
    ArgumentError
        If it is something else.
    """

    def __init__(self, scaler: Any) -> None:
        if scaler is not None and not callable(getattr(scaler, "get_scale", None)):
            raise ArgumentError(
                f"scaler takes the GradScaler that scales the loss, not {scaler!r}.", page="kinds#parameters"
            )
        self._scaler = scaler

    def divide(self, gradient: Tensor) -> Tensor:
        """Return a gradient of the scaled loss as one of the loss itself; it is not changed."""
        if self._scaler is None:
            return gradient
        scale = getattr(self._scaler, "_scale", None)  # get_scale() would wait for the device
        if isinstance(scale, Tensor):
            return gradient if scale.is_cpu and float(scale) == 1 else divided(gradient, scale)
        if hasattr(self._scaler, "_scale"):  # disabled, or before its first loss
            return gradient
        return divided(gradient, torch.tensor(float(self._scaler.get_scale())))


def divided(gradient: Tensor, scale: Tensor) -> Tensor:
    """Return a gradient divided by a scale: in float32 at least, since float16 would lose what the scale has saved.

    Parameters
    ----------
    gradient : Tensor
        Of any layout.
    scale : Tensor
        Without dimensions.
    """
    wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
    return wide / scale.to(wide.device, non_blocking=True)
