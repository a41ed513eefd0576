"""Steps of fastai's own optimiser, which is no torch optimiser and has no hooks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from fastai.callback.core import Callback
from torch.utils.hooks import RemovableHandle

__all__ = ["StepGate", "Steps"]

Hook = Callable[[Any, tuple[Any, ...], dict[str, Any]], None]


class Steps:
    """What a recording uses of a torch optimiser, of one of fastai.

    Parameters
    ----------
    optimizer : fastai.optimizer.Optimizer
    """

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._before: OrderedDict[int, Hook] = OrderedDict()
        self._after: OrderedDict[int, Hook] = OrderedDict()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups, with the names that torch has for hyperparameters."""
        return [
            {"params": list(group["params"]), "lr": group.get("lr"), "weight_decay": group.get("wd")}
            for group in self._optimizer.param_groups
        ]

    def register_step_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call `hook` before each step."""
        return _register(self._before, hook)

    def register_step_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call `hook` after each step."""
        return _register(self._after, hook)

    def before_step(self) -> None:
        """Tell that the optimiser is about to step, with the gradients that are there now."""
        self._tell(self._before)

    def after_step(self) -> None:
        """Tell that it has stepped."""
        self._tell(self._after)

    def _tell(self, hooks: OrderedDict[int, Hook]) -> None:
        for hook in list(hooks.values()):
            hook(self, (self,), {})


class StepGate(Callback):  # type: ignore[misc]
    """The last to hear of a step, once gradients are unscaled and clipped and nobody has cancelled it."""

    order, run_valid, remove_on_fetch = 1_000, False, True
    _stateattrs = ("_steps",)

    def __init__(self, steps: Steps) -> None:
        self._steps: Steps | None = steps

    def _init_state(self) -> None:  # of a copy
        self.__dict__["_steps"] = None

    def before_step(self) -> None:
        if self._steps is not None:
            self._steps.before_step()


def _register(hooks: OrderedDict[int, Hook], hook: Hook) -> RemovableHandle:
    handle = RemovableHandle(hooks)
    hooks[handle.id] = hook
    return handle
