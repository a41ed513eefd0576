"""Symptoms measured on raw tensors, by nothing of colordim: the second axis of labels.

What is true of a training may be harmless: that is the outcome's to say.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["Oracle"]

RECTIFIERS = (nn.ReLU, nn.GELU)
SQUASHERS = {
    nn.Tanh: (-0.97, 0.97),
    nn.Sigmoid: (0.03, 0.97),
}  # 0.97 of tanh: Karpathy, makemore 3; the same slope share in sigmoid
EVERY = 5  # update ratios and gradient norms are taken of the first epoch's batches, and of every fifth later


class Oracle:
    """Watches the tensors of one training.

    Parameters
    ----------
    model : torch.nn.Module
        The one that trains: each leaf's output is checked for NaN and Inf in each training batch.
    twin : torch.nn.Module
        Another one of the same recipe, which nobody else has hooked: it is loaded at the ends of some epochs, and given all of
        the training data in evaluation mode.
    """

    def __init__(self, model: nn.Module, twin: nn.Module, x: Tensor, batches_per_epoch: int) -> None:
        self._model, self._twin, self._x, self._first_epoch = model, twin, x, batches_per_epoch
        self._batch = -1
        self._before: dict[str, Tensor] = {}
        self.start_std: dict[str, float] = {}
        self.first_not_finite: tuple[int, str, str] | None = None  # batch, layer, "activation" | "gradient" | "weight"
        self.gradient_norms: dict[str, list[tuple[int, float]]] = {}
        self.update_ratios: dict[str, list[tuple[int, float]]] = {}
        self.epochs: list[dict[str, Any]] = []
        self._handles: list[RemovableHandle] = [
            module.register_forward_hook(self._look(name))
            for name, module in model.named_modules()
            if not any(True for _ in module.children())
        ]

    def begin_batch(self, batch: int) -> None:
        """Expect the outputs of a training batch."""
        self._batch = batch

    @torch.no_grad()
    def before_step(self) -> None:
        """Look at the gradients, and keep the weights."""
        batch, self._before = self._batch, {}
        self._batch = -1
        due = batch < self._first_epoch or batch % EVERY == 0
        for name, parameter in self._model.named_parameters():
            norm = None if parameter.grad is None else float(parameter.grad.norm())
            if norm is not None and not math.isfinite(norm) and self.first_not_finite is None:
                self.first_not_finite = (batch, name, "gradient")
            if due:
                if norm is not None:
                    self.gradient_norms.setdefault(name, []).append((batch, norm))
                self._before[name] = parameter.detach().clone()

    @torch.no_grad()
    def after_step(self, batch: int) -> None:
        """Measure std(dW) / std(W) of each parameter of two dimensions or more."""
        for name, parameter in self._model.named_parameters():
            if name in self._before and parameter.dim() > 1:
                change, spread = parameter - self._before[name], float(self._before[name].std())
                moved = float(change.std()) or float(change.abs().max())  # alike, and yet not still
                ratio = moved / spread if spread else math.inf if moved else 0.0
                self.update_ratios.setdefault(name, []).append((batch, ratio))

    @torch.no_grad()
    def end_epoch(self, batch: int) -> None:
        """Run all of the training data through the twin: dead units, saturated shares, spread of each layer."""
        self._twin.load_state_dict(self._model.state_dict())
        self._twin.eval()
        seen: dict[str, dict[str, float]] = {}

        def look(name: str, module: nn.Module) -> Any:
            def hook(_: nn.Module, __: Any, out: Any) -> None:
                out = out[0] if isinstance(out, tuple) else out
                row = {"std": float(out.std()), "max": float(out.abs().max())}
                if isinstance(module, RECTIFIERS):
                    channel = 1 if out.dim() == 4 else out.dim() - 1
                    highest = out.movedim(channel, 0).flatten(1).max(1).values
                    row["dead"] = float((highest <= 0).float().mean())
                    row["zeros"] = float((out == 0).float().mean())
                if (limits := SQUASHERS.get(type(module))) is not None:
                    row["saturated"] = float(((out < limits[0]) | (out > limits[1])).float().mean())
                seen[name] = row

            return hook

        handles = [
            module.register_forward_hook(look(name, module))
            for name, module in self._twin.named_modules()
            if not any(True for _ in module.children())
        ]
        try:
            logits = self._twin(self._x)
        finally:
            for handle in handles:
                handle.remove()
        constant = float(logits.std(0).max()) if len(logits) > 1 else 0.0
        self.epochs.append({"batch": batch, "layers": seen, "output_spread": constant})

    def end(self) -> dict[str, Any]:
        """Detach the hooks, and return what was measured as JSON's types."""
        for handle in self._handles:
            handle.remove()
        last = self.epochs[-1]["layers"] if self.epochs else {}
        return {
            "first_not_finite": self.first_not_finite,
            "start_std": self.start_std,
            "dead": {name: row["dead"] for name, row in last.items() if "dead" in row},
            "saturated": {name: row["saturated"] for name, row in last.items() if "saturated" in row},
            "gradient_norms": self.gradient_norms,
            "update_ratios": self.update_ratios,
            "epochs": self.epochs,
        }

    def _look(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, out: Any) -> None:
            if self._batch < 0:
                return
            out = out[0] if isinstance(out, tuple) else out
            if self._batch == 0:
                self.start_std[name] = float(out.detach().std())
            if self.first_not_finite is None and not bool(torch.isfinite(out.detach()).all()):
                self.first_not_finite = (self._batch, name, "activation")

        return hook
