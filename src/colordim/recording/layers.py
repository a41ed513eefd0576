"""The recorded layers by their numbers: how their streams are described, and counting what they return."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from colordim.column import Kind, Phase, Reduction
from colordim.recording.counters import Counters
from colordim.recording.facets import Facets
from colordim.recording.notices import Notices
from colordim.recording.outputs import is_countable
from colordim.recording.select import Target, all_modules, class_name
from colordim.recording.units import Activity
from colordim.recording.watch import replaced

__all__ = ["Layers"]


class Layers:
    """Counts the tensors of layers into their streams.

    Parameters
    ----------
    targets : sequence of Target
        The layers, by their numbers.
    counters : Counters
    activity : Activity
    facets : Facets or None
        Count the parts of some layers besides.
    notices : Notices
    lock : lock
        Held while something is counted: replicas of a model run in threads.

    Attributes
    ----------
    names : list of str
    disabled : set of int
        Layers that are no longer recorded, because counting them failed.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        counters: Counters,
        activity: Activity,
        facets: Facets | None,
        notices: Notices,
        lock: threading.RLock,
    ) -> None:
        self.names = [target.name for target in targets]
        self.disabled: set[int] = set()
        self._targets = list(targets)
        self._described: list[tuple[str, str, str] | None] = [None] * len(self._targets)
        self._counters = counters
        self._activity = activity
        self._facets = facets
        self._notices = notices
        self._lock = lock

    @property
    def modules(self) -> list[nn.Module]:
        """The modules as they are now; empty after :meth:`release`."""
        return [target.module for target in self._targets]

    def release(self) -> None:
        """Let go of the modules."""
        self._targets.clear()

    def follow(self, model: nn.Module) -> Iterator[tuple[int, nn.Module]]:
        """Take what was put in the place of recorded modules, and yield it with the number of its layer."""
        for number, target in replaced(self._targets, all_modules(model)):
            before, after = class_name(self._targets[number].module), class_name(target.module)
            self._targets[number] = target
            self._described[number] = None
            yield number, target.module
            self._notices.say(
                f"replaced:{target.name}",
                f"{target.name!r} was replaced ({before} by {after}) while it was recorded: batches up to now may lack "
                "it, from here on the new one is recorded; begin recording after the model is complete.",
                "pitfalls",
            )

    def describe(self, layer: int) -> tuple[str, str, str]:
        """Return the name of a layer, its class, and its arguments, as of its first output."""
        described = self._described[layer]
        if described is None:  # not earlier: a lazy module is of another class until then
            target = self._targets[layer]
            described = target.name, class_name(target.module), target.module.extra_repr()
            self._described[layer] = described
        return described

    def count_output(self, layer: int, suffix: str, tensor: Tensor, phase: Phase) -> None:
        """Count one tensor of what a layer returned."""
        if not is_countable(tensor):
            return
        name, module, arguments = self._described[layer] or self.describe(layer)
        counted = self.count(name + suffix, tensor, module, arguments)
        if counted and layer in self._activity.owners and not suffix:
            with self._lock:
                self._activity.called(layer, tensor, phase)

    def count(
        self,
        name: str,
        tensor: Tensor,
        module: str,
        arguments: str,
        kind: Kind = "activation",
        reduction: Reduction = "sum",
        order: int | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> bool:
        """Count a tensor into a stream, and into those of its facets; return whether its values could be read."""
        with self._lock:
            if self._facets is not None and self._facets.has(name, kind):
                self._notices.say(
                    f"facet:{name}",
                    f'{name!r} is a facet already, so the element of a tuple of that name is recorded as "{name}\'".',
                    "pitfalls",
                )
                name += "'"
            counted = self._counters.count(name, tensor, module, arguments, kind, reduction, None, order, shape)
            if counted and self._facets is not None:
                self._facets.count(name, tensor, module, arguments, kind, reduction, order, shape)
        if not counted:
            self._notices.say(
                f"unreadable:{name}",
                f"{name!r} is not recorded: its values cannot be read here "
                f"({type(tensor).__name__} of {tensor.dtype} on {tensor.device}).",
                "pitfalls",
            )
        return counted

    def failed(self, name: str, layer: int | None, error: Exception) -> None:
        """Take note that counting failed: what failed once would fail in every batch."""
        if layer is not None:
            self.disabled.add(layer)
        self._notices.say(
            f"failed:{name}",
            f"{name!r} is no longer recorded, because counting it failed ({type(error).__name__}: {error}); "
            "training goes on.",
            "pitfalls",
        )
