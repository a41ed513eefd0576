"""Weights, their gradients, and what the optimiser changes, read when it steps.

Nothing is attached to the parameters. Before the step their gradients are complete: reduced over ranks, clipped, and
without the scale of a GradScaler, which does not call the step at all if it skips it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from colordim.column import COUNTERS, MOMENTS, OF_PARAMETERS, Kind, Reduction
from colordim.recording.kinds import Host
from colordim.recording.outputs import is_countable
from colordim.recording.scaling import divided
from colordim.recording.select import Target, class_name, own_parameters
from colordim.recording.transport import is_capturing
from colordim.recording.window import Window

__all__ = ["Parameters", "replicated"]


@dataclass(frozen=True)
class _Parameter:
    """A parameter of a selected layer, and what its streams say of it."""

    tensor: Tensor
    name: str
    module: str
    arguments: str
    order: int


@dataclass
class _Batch:
    """What has happened to the parameters in the batch that is open."""

    window: Window
    due: frozenset[Kind]
    stepped: bool = False
    used: set[str] = field(default_factory=set)
    """Names of the parameters whose gradients the optimisers have used."""
    all_used: bool = True
    """Whether there are no others, and each was used once."""


@dataclass
class _Step:
    """A step of an optimiser that is under way."""

    closure: bool
    members: list[_Parameter]
    others: list[_Parameter]
    """Those of no optimiser."""
    before: list[tuple[_Parameter, Tensor]]
    """Copies of the values, of which each becomes the difference after the step."""


class Parameters:
    """Counts the parameters of the selected layers into the batch in which an optimiser steps.

    Parameters
    ----------
    host : Host
    targets : sequence of Target
        The layers, which may change; a parameter that several of them share is counted once, under its first name.
    optimizers : iterable of Optimizer
    every : mapping of str to int
        Every how many of the recorded batches with a step each kind is recorded.
    shared : set of int
        Identities of the parameters that all ranks have alike.
    batches : int
        Recorded batches with a step so far, of a run that is gone on with.
    """

    def __init__(
        self,
        host: Host,
        targets: Sequence[Target],
        optimizers: Iterable[Optimizer],
        every: Mapping[Kind, int],
        shared: frozenset[int] = frozenset(),
        batches: int = 0,
    ) -> None:
        self._host = host
        self._targets = targets
        self._optimizers = list(optimizers)
        self._every = {kind: every[kind] for kind in OF_PARAMETERS if kind in every}
        self._shared = shared
        self._batches = batches
        self._batch: _Batch | None = None
        self._steps: dict[int, _Step] = {}
        self._described: dict[tuple[str, type[nn.Module]], tuple[str, str]] = {}
        self._failed = False

    def attach(self) -> list[Any]:
        """Register the hooks of the optimisers; return their handles."""
        before = [optimizer.register_step_pre_hook(self._before_step) for optimizer in self._optimizers]
        return before + [optimizer.register_step_post_hook(self._after_step) for optimizer in self._optimizers]

    def close(self) -> None:
        """Take note that the batch is about to be closed."""
        if not self._optimizers and not self._every:
            return
        window = self._host.window
        # A closure opens batches during its step; other steps are over, or were left by an exception.
        self._steps = {key: step for key, step in self._steps.items() if step.closure}
        if window is None or window.phase != "train" or not self._works():
            return
        with self._guarded():
            if self._optimizers:
                self._host.suggest(self._rates())
            elif window.recorded and "weight" in self._enter(window).due:
                self._count_all("weight", self._listed())
            batch = self._batch
            if batch is not None and batch.window is window and batch.used and batch.all_used:
                self._host.suggest(self._norm(batch.used))

    def end(self) -> None:
        """Take note that the recording is about to end, after its last batch was closed."""
        if self._every and not self._batches and not self._failed:
            why = (
                "none of the given optimizers took a step in a recorded batch (under gradient accumulation, take an "
                "every= that does not pass over the batches with a step)"
                if self._optimizers
                else "no training batch was recorded"
            )
            self._host.notices.say(
                "no parameters", f"No {' or '.join(self._every)} was recorded: {why}.", "kinds#parameters"
            )

    # Called by the optimisers.

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not self._works() or _will_skip(optimizer):
            return
        window, closure = self._host.window, any(map(callable, [*args[1:], *kwargs.values()]))
        with self._guarded():
            # A closure calls the model, which opens a batch if none was opened explicitly.
            step = self._steps[id(optimizer)] = _Step(closure, [], [], [])
            if window is not None:
                if window.phase == "train":
                    self._host.suggest(self._rates())
                if not self._every or not window.recorded:
                    return
                batch = self._enter(window)
                due = batch.due
            elif closure:
                batch, due = None, frozenset(self._every)
            else:
                self._fell_outside()
                return
            step.members, step.others = self._split(optimizer)
            if batch is not None:
                read = step.members if batch.stepped else step.members + step.others
                if "weight" in due:
                    self._count_all("weight", read)
                if "weight_gradient" in due and not closure:
                    self._count_gradients(batch, optimizer, read)
            if "update" in due:
                step.before = [(each, _local(each.tensor).detach().clone()) for each in step.members]

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        step, window = self._steps.pop(id(optimizer), None), self._host.window
        if step is None or window is None or not self._every or not window.recorded or not self._works():
            return
        with self._guarded():
            batch = self._enter(window)
            if step.closure and "weight_gradient" in batch.due:  # those of the closure's last evaluation
                self._count_gradients(batch, optimizer, step.members)
            if "update" in batch.due:
                while step.before:
                    each, before = step.before.pop()
                    torch.sub(_local(each.tensor).detach(), before, out=before)
                    self._count("update", each, before)
                if not batch.stepped:
                    for each in step.others:
                        self._count("update", each, _zeros(each.tensor))
            batch.stepped = True

    # Counting.

    def _enter(self, window: Window) -> _Batch:
        """Return what is known of the recorded batch that is open."""
        if self._batch is None or self._batch.window is not window:
            due = frozenset(kind for kind, every in self._every.items() if self._batches % every == 0)
            self._batch = _Batch(window, due)
            self._batches += 1
        return self._batch

    def _listed(self) -> list[_Parameter]:
        """Return the parameters as they are now: they may have been replaced, made, or moved."""
        found: dict[int, _Parameter] = {}
        for target in self._targets:
            module = target.module
            if not module._parameters and not module._modules:  # as most layers, and asked for at every step
                continue
            for name, tensor in own_parameters(module):
                if id(tensor) in found or is_lazy(tensor) or tensor.is_meta or not is_countable(tensor):
                    continue
                key = target.name, type(module)  # a lazy module is of another class once it has parameters
                if key not in self._described:
                    self._described[key] = class_name(module), module.extra_repr()
                described = self._described[key]
                found[id(tensor)] = _Parameter(tensor, f"{target.name}.{name}", *described, len(found))
        return list(found.values())

    def _split(self, optimizer: Optimizer) -> tuple[list[_Parameter], list[_Parameter]]:
        """Return the parameters of this optimiser, and those of none."""
        own = {id(tensor) for tensor in _of(optimizer)}
        of_any = own.union(id(tensor) for each in self._optimizers if each is not optimizer for tensor in _of(each))
        listed = self._listed()
        return (
            [each for each in listed if id(each.tensor) in own],
            [each for each in listed if id(each.tensor) not in of_any],
        )

    def _count_all(self, kind: Kind, parameters: Iterable[_Parameter]) -> None:
        for each in parameters:
            self._count(kind, each, each.tensor.detach())

    def _count_gradients(self, batch: _Batch, optimizer: Optimizer, parameters: Sequence[_Parameter]) -> None:
        scale = getattr(optimizer, "grad_scale", None)  # of an optimiser that unscales in its own kernel
        own = {id(tensor) for tensor in _of(optimizer) if tensor.grad is not None}
        for each in parameters:
            gradient = each.tensor.grad
            if gradient is None:
                continue
            if isinstance(scale, Tensor) and not (scale.is_cpu and float(scale) == 1):
                gradient = divided(gradient.detach(), scale)
            self._count("weight_gradient", each, gradient)
            if id(each.tensor) in own:
                own.remove(id(each.tensor))
                batch.all_used &= each.name not in batch.used and getattr(each.tensor, "placements", None) is None
                batch.used.add(each.name)
        batch.all_used &= not own

    def _count(self, kind: Kind, each: _Parameter, tensor: Tensor) -> None:
        reduction, here = self._reduction(each.tensor)
        self._host.count(
            kind,
            each.name,
            tensor if here else tensor.new_empty(0),
            each.module,
            each.arguments,
            reduction=reduction,
            order=each.order,
            shape=tuple(each.tensor.shape),
        )

    def _reduction(self, parameter: Tensor) -> tuple[Reduction, bool]:
        """Return how columns of several ranks become one, and whether this rank's is one of those that are added."""
        placements = getattr(parameter, "placements", None)
        if placements is None:
            return ("replicated" if id(parameter) in self._shared else "sum"), True
        alike = [placement.is_replicate() for placement in placements]
        if all(alike):
            return "replicated", True
        place = parameter.device_mesh.get_coordinate() or [0] * len(alike)  # type: ignore[attr-defined]
        return "sum", not any(same and at for same, at in zip(alike, place, strict=True))

    def _rates(self) -> dict[str, object]:
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        return {f"lr_{i}" if i else "lr": group["lr"] for i, group in enumerate(groups) if "lr" in group}

    def _norm(self, names: set[str]) -> dict[str, object]:
        """Return the norm of all gradients that were used, from what was counted of them."""
        rows = [row for name, found in self._host.rows("weight_gradient").items() if name in names for row in found]
        if len({row.counts.device for row in rows}) != 1:  # nothing is moved between devices for it
            return {}
        counts = torch.stack([row.counts[-len(COUNTERS) :] for row in rows]).sum(0)
        moments = torch.stack([row.moments for row in rows])
        norm = moments[:, MOMENTS.index("sum_sq")].sum().sqrt()
        infinite = counts[COUNTERS.index("pos_inf")] + counts[COUNTERS.index("neg_inf")]
        norm = norm.masked_fill(infinite > 0, float("inf"))
        return {"grad_norm": norm.masked_fill(counts[COUNTERS.index("nan")] > 0, float("nan"))}

    # Surroundings.

    def _works(self) -> bool:
        return not torch.compiler.is_compiling() and not self._failed and self._host.here() and not is_capturing()

    def _fell_outside(self) -> None:
        if self._every:
            self._host.notices.say(
                "step outside",
                f"An optimizer stepped outside of a batch, so no {' or '.join(self._every)} was counted of that step: "
                'put its step() into the `with rec.batch("train"):` block, before rec.epoch().',
                "kinds#parameters",
            )

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            with torch.no_grad():
                yield
        except Exception as error:
            self._failed = True
            self._steps.clear()
            self._host.notices.say(
                "failed parameters",
                f"Parameters are no longer recorded, because counting them failed ({type(error).__name__}: {error}); "
                "training goes on.",
                "kinds#parameters",
            )
        self._host.spend(time.perf_counter() - began)


def replicated(model: nn.Module) -> frozenset[int]:
    """Return the identities of the parameters that DistributedDataParallel keeps alike on several ranks."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return frozenset()
    wrapped = [module for module in model.modules() if isinstance(module, DistributedDataParallel)]
    return frozenset(id(parameter) for module in wrapped for parameter in module.parameters())


def _of(optimizer: Optimizer) -> Iterator[Tensor]:
    return (tensor for group in optimizer.param_groups for tensor in group["params"])


def _will_skip(optimizer: Optimizer) -> bool:
    """Whether an optimiser that GradScaler has told to look for itself is going to change nothing."""
    found = getattr(optimizer, "found_inf", None)
    return isinstance(found, Tensor) and found.is_cpu and bool(found)


def _local(tensor: Tensor) -> Tensor:
    """Return the shard of a DTensor that this rank has; any other tensor itself."""
    to_local = getattr(tensor, "to_local", None)
    return tensor if to_local is None else to_local()


def _zeros(parameter: Tensor) -> Tensor:
    """Return as many zeros as this rank has of a parameter, without their memory."""
    shape = _local(parameter).shape
    return torch.sparse_coo_tensor(
        torch.empty((len(shape), 0), dtype=torch.int64), torch.empty(0), shape, device="cpu", check_invariants=False
    )
