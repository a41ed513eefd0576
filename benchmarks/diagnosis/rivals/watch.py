"""What rule sets look at, observed once for all of them: outputs of modules, gradients, weights, updates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from benchmarks.diagnosis.monitor import Verdict
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = ["ACTIVATIONS", "Said", "Watch", "units"]

ACTIVATIONS = (
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus),
    *(nn.Sigmoid, nn.Tanh),
)


class Watch:
    """Observes one training for several monitors; each observation is made once a batch, however many ask.

    The training is left bit for bit as it is: hooks return nothing, draw no random number and write to no tensor.

    Attributes
    ----------
    modules : dict of str to Module
        Leaf modules that were run, in the order of the last forward pass of training.
    inputs, outputs : dict of str to Tensor
        Of these modules, detached: the last call within the last forward pass of training, which is one with gradients
        enabled (a fault may leave the model in evaluation mode).
    parameters : dict of str to Parameter
        Those that asked for gradients when the training began.
    gradients : dict of str to Tensor
        Those that are there after the backward pass.
    gradient_size, weight_size, update_size : dict of str to float
        Mean absolute values; NaN or infinite where any value is. Weights are those before the step.
    """

    def __init__(self) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.parameters: dict[str, nn.Parameter] = {}
        self.gradients: dict[str, Tensor] = {}
        self.before: dict[str, Tensor] = {}
        self.gradient_size: dict[str, float] = {}
        self.weight_size: dict[str, float] = {}
        self.update_size: dict[str, float] = {}
        self._model: nn.Module | None = None
        self._handles: list[RemovableHandle] = []
        self._seen = self._stepped = -1
        self._sums: dict[str, float] | None = None

    def begin(self, model: nn.Module) -> None:
        """Attach to a model, if that has not been done yet."""
        if self._model is model:
            return
        self._model = model
        self.parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        for name, module in model.named_modules():
            if not any(True for _ in module.children()):
                self._handles.append(module.register_forward_hook(self._hook(name, module)))
        self._handles.append(model.register_forward_pre_hook(self._forget))

    def before_step(self, batch: int) -> None:
        """Take gradients and weights of a batch."""
        if self._seen == batch:
            return
        self._seen, self._sums = batch, None
        self.gradients = {name: each.grad for name, each in self.parameters.items() if each.grad is not None}
        self.gradient_size = _sizes(self.gradients)
        values = {name: each.detach() for name, each in self.parameters.items()}
        self.before = {name: value.clone() for name, value in values.items()}
        self.weight_size = _sizes(values)

    def after_step(self, batch: int) -> None:
        """Take what the step has changed."""
        if self._stepped == batch:
            return
        self._stepped = batch
        self.update_size = _sizes({name: self.parameters[name].detach() - was for name, was in self.before.items()})

    def output_sums(self) -> dict[str, float]:
        """Return the sum of each module's output: not finite where any value is not."""
        if self._sums is None:
            self._sums = _floats({name: each.sum() for name, each in self.outputs.items()})
        return self._sums

    def end(self) -> None:
        """Detach from the model."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._model = None
        self.inputs, self.outputs, self.gradients, self.before = {}, {}, {}, {}

    def _forget(self, module: nn.Module, args: tuple[object, ...]) -> None:
        if torch.is_grad_enabled():
            self.modules, self.inputs, self.outputs = {}, {}, {}

    def _hook(self, name: str, module: nn.Module) -> Callable[[nn.Module, tuple[object, ...], object], None]:
        def keep(_: nn.Module, args: tuple[object, ...], output: object) -> None:
            value = output[0] if isinstance(output, tuple) else output
            if not torch.is_grad_enabled() or not isinstance(value, Tensor) or not value.is_floating_point():
                return
            self.modules[name] = module
            self.outputs[name] = value.detach()
            if args and isinstance(args[0], Tensor):
                self.inputs[name] = args[0].detach()

        return keep


@dataclass
class Said:
    """Collects verdicts; what was said once of a layer is not said again."""

    verdicts: list[Verdict] = field(default_factory=list)
    known: set[tuple[str, str | None]] = field(default_factory=set)

    def say(self, symptom: str, native: str, layer: str | None, batch: int) -> None:
        """Note a verdict; `layer` may be the name of a parameter, whose module is meant."""
        if layer is not None:
            head, _, tail = layer.rpartition(".")
            layer = head if tail.startswith(("weight", "bias", "in_proj")) else layer
        if (native, layer) not in self.known:
            self.known.add((native, layer))
            self.verdicts.append(Verdict(symptom, native, layer, batch))


def units(values: Tensor) -> Tensor:
    """Return activations as [observations, units]: channels are units where there are positions, else the last axis is."""
    if values.ndim == 4:
        values = values.movedim(1, -1)
    return values.reshape(-1, values.shape[-1])


def _sizes(tensors: dict[str, Tensor]) -> dict[str, float]:
    return _floats({name: each.abs().mean() for name, each in tensors.items()})


def _floats(scalars: dict[str, Tensor]) -> dict[str, float]:
    if not scalars:
        return {}
    return dict(zip(scalars, torch.stack([each.float() for each in scalars.values()]).tolist(), strict=True))
