"""Which quantities of a layer are recorded, how often, and what their parts need from the recorder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, cast

from torch import Tensor

from colordim.binning import Row
from colordim.column import KINDS, Kind, Reduction
from colordim.errors import ArgumentError
from colordim.recording.notices import Notices
from colordim.recording.window import Window

__all__ = ["NEED_OPTIMIZER", "Host", "Kinds", "as_kinds"]

#: What `kinds=` accepts.
Kinds = str | Sequence[str] | Mapping[str, int]

#: Kinds that are read when an optimiser steps.
NEED_OPTIMIZER: tuple[Kind, ...] = ("weight_gradient", "update")


class Host(Protocol):
    """What gradients and parameters use of the recorder."""

    notices: Notices

    @property
    def window(self) -> Window | None:
        """The batch that is open."""

    def here(self) -> bool:
        """Return whether this is the process that records, and it still does."""

    def describe(self, layer: int) -> tuple[str, str, str]:
        """Return name, class and arguments of a layer."""

    def inside(self) -> bool:
        """Return whether layers that run now belong to the batch that is open, and it is recorded."""

    def count(
        self,
        kind: Kind,
        name: str,
        tensor: Tensor,
        module: str,
        arguments: str,
        reduction: Reduction = "sum",
        order: int | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        """Add a tensor to a stream of the batch that is open; see :class:`colordim.column.Stream`."""

    def rows(self, kind: Kind) -> Mapping[str, Sequence[Row]]:
        """Return what was counted of a kind in the batch that is open, by the name of the stream."""

    def suggest(self, values: Mapping[str, object]) -> None:
        """Log numbers with the batch that is open, except under names that the user has logged."""

    def is_due(self, kind: Kind) -> bool:
        """Return whether the batch that is open has columns of a kind that layers return."""

    def spend(self, seconds: float) -> None:
        """Take note of what was spent on the batch that is open."""


def as_kinds(kinds: Kinds, has_optimizer: bool) -> dict[Kind, int]:
    """Return every how many recorded batches each kind is recorded.

    Parameters
    ----------
    kinds : str, sequence of str, or mapping of str to int
        Of :data:`colordim.column.KINDS`; "all" stands for each of them. A mapping says every how many
        recorded batches; else it is each one.
    has_optimizer : bool
        Whether there is an optimiser to listen to.

    Raises
    ------
    ArgumentError
        If a kind is unknown or needs an optimiser, if there is none, or a number is below one.
    """
    items: Iterable[tuple[str, int]]
    if isinstance(kinds, Mapping):
        items = kinds.items()
    else:
        items = [(kind, 1) for kind in ([kinds] if isinstance(kinds, str) else kinds)]
    wanted: dict[Kind, int] = {}
    for name, every in items:
        if name != "all" and name not in KINDS:
            raise ArgumentError(f"there is no kind {name!r}: take {', '.join(KINDS)}, or 'all'.", page="kinds")
        if isinstance(every, bool) or not isinstance(every, (int, float)) or every != int(every) or every < 1:
            raise ArgumentError(
                f"kinds={{{name!r}: {every!r}}} cannot be: record a kind every n-th recorded batch, with a whole number "
                "n of at least one.",
                page="kinds",
            )
        wanted |= dict.fromkeys(KINDS if name == "all" else [cast("Kind", name)], int(every))
    if not wanted:
        raise ArgumentError(
            "kinds is empty, so nothing would be recorded: leave it out to record activations.", page="kinds"
        )
    lacking = [kind for kind in NEED_OPTIMIZER if kind in wanted]
    if lacking and not has_optimizer:
        raise ArgumentError(
            f"{' and '.join(lacking)} cannot be recorded without an optimizer, at whose steps they are read: "
            "pass optimizer= to record().",
            page="kinds",
        )
    return {kind: wanted[kind] for kind in KINDS if kind in wanted}
