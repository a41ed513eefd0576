"""Gives each epoch of a run to targets, once it is over: of a finished run, and of one that is being recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from colordim.diagnosis.finding import Diagnosis
from colordim.errors import ArgumentError
from colordim.publish.drawing import draw
from colordim.publish.epochs import Epoch, Span, layers, spans
from colordim.publish.target import Target, target
from colordim.views import Run

__all__ = ["Publisher", "export"]

#: Epochs of which an export draws figures: as many images of a tag as TensorBoard keeps by default.
FIGURES = 10


class Publisher:
    """Publishes the epochs of a run, each when it is over.

    An epoch is over when a later one has begun, or the run has ended. Where ranks lack batches of it, one epoch more is
    waited for.

    Parameters
    ----------
    targets : sequence of Target
    since : int
        Number of the first batch that is new: epochs that end before it were published.
    failed : callable, optional
        Is told the name of a target, or "figures", and the error after which it gets, or there are, no more; by default
        errors are raised.
    draw : callable
        Returns the figures of an epoch.
    diagnosis : callable
        Returns what is known to be wrong with the run, or None.

    Attributes
    ----------
    epoch : int
        Number of the last epoch that is over, -1 before.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        since: int = 0,
        failed: Callable[[str, Exception], None] | None = None,
        draw: Callable[[Run, Span], dict[str, bytes]] = draw,
        diagnosis: Callable[[Run], Diagnosis | None] = lambda run: run.diagnose(),
    ) -> None:
        self.epoch = -1
        self._targets = list(targets)
        self._draw = draw if any(each.draws for each in targets) else None
        self._since = since
        self._failed = failed
        self._diagnosis = diagnosis

    def update(self, run: Run, *, final: bool = False, figures: int | None = None) -> int:
        """Publish what is over in the present snapshot of a run.

        Parameters
        ----------
        run : Run
        final : bool
            Whether no batch will follow, so that the last epoch is over as well.
        figures : int, optional
            Of how many epochs figures are drawn at most, at even distances and the last in any case; by default of all.

        Returns
        -------
        int
            How many epochs were published.
        """
        over = spans(run)
        if not final and run.ended is None:
            over = over[:-1]
            if over and over[-1].partial:
                over = over[:-1]
        ready = [span for span in over if span.last >= self._since]
        drawn = set(range(len(ready)))
        if figures is not None and len(ready) > figures:
            last = len(ready) - 1
            drawn = {round(last * (i + 1) / figures) for i in range(figures)} if figures else set()
        for i, span in enumerate(ready):
            self._publish(run, span, i in drawn, i == len(ready) - 1)
            self._since = span.last + 1
        if over:
            self.epoch = over[-1].epoch
        return len(ready)

    @property
    def idle(self) -> bool:
        """Whether no target is left."""
        return not self._targets

    def close(self) -> None:
        """Close all targets."""
        for each in self._targets:
            try:
                each.close()
            except Exception as error:
                self._fail(each.name, error)
        self._targets.clear()

    def _publish(self, run: Run, span: Span, drawn: bool, last: bool) -> None:
        if not self._targets:
            return
        sums = layers(run, span)
        if not sums:
            return
        figures: dict[str, bytes] = {}
        if drawn and self._draw is not None:
            try:
                figures = self._draw(run, span)
            except Exception as error:
                self._fail("figures", error)
                self._draw = None
        epoch = Epoch(run, span, sums, figures, self._diagnosis(run) if last else None)
        for each in list(self._targets):
            try:
                each.publish(epoch)
            except Exception as error:
                self._fail(each.name, error)
                self._targets.remove(each)

    def _fail(self, what: str, error: Exception) -> None:
        if self._failed is None:
            raise error
        self._failed(what, error)


def export(run: Run, to: Any, *, figures: int | None = FIGURES) -> int:
    """Publish all epochs of a run.

    Parameters
    ----------
    run : Run
    to : str or object
        As ``record(log_to=...)`` takes it, or a :class:`~colordim.publish.target.Target`.
    figures : int, optional
        Of how many epochs figures are drawn at most; None draws those of all.

    Returns
    -------
    int
        How many epochs were published: the last one too, even if the run has not ended.

    Raises
    ------
    ArgumentError
        If nothing can be published to `to`, or the run holds nothing.
    DependencyError
        If the package for it is not installed.
    """
    chosen = target(to)
    if not run.streams or not len(run.batches["batch"]):
        raise ArgumentError(f"the run {run.path or run.name} holds nothing that could be published.", page="exports")
    publisher = Publisher([chosen])
    try:
        return publisher.update(run, final=True, figures=figures)
    finally:
        publisher.close()
