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
            raise ArgumentError(f"scaler takes the GradScaler that scales the loss, not {scaler!r}.")
        self._scaler = scaler
        self._known: tuple[Tensor, int, Tensor | None] | None = None

    def divide(self, gradient: Tensor) -> Tensor:
        """Return a gradient of the scaled loss as one of the loss itself; it is not changed."""
        if self._scaler is None:
            return gradient
        scale = self._now()
        return gradient if scale is None else divided(gradient, scale)

    def _now(self) -> Tensor | None:
        """Return the scale as a tensor, which stays on its device, or None if it is one."""
        scale = getattr(self._scaler, "_scale", None)  # what get_scale() would wait for
        if not isinstance(scale, Tensor):  # before the first loss, or disabled, or of another make
            number = float(self._scaler.get_scale()) if scale is None and not hasattr(self._scaler, "_scale") else 1.0
            return None if number == 1 else torch.tensor(number)
        if self._known is None or self._known[0] is not scale or self._known[1] != scale._version:
            self._known = scale, scale._version, None if scale.is_cpu and float(scale) == 1 else scale
        return self._known[2]


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
