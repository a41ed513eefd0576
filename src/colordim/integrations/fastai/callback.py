"""The callback that records: events of a fit open and close the windows of a session.

What decides the design, of fastai 2.8:

- ``before_fit`` is also fired by ``validate``, ``get_preds``, ``predict``, ``show_results`` and ``summary``; only a fit
  fires ``before_train``. ``DistributedTrainer`` replaces modules in ``before_fit``.
- Ordinary exceptions and Ctrl-C fire nothing: what they leave is tidied up by the next fit.
- An exception that cancels something inside ``after_batch`` keeps that event from the callbacks behind it, so this one
  is before all others.
- ``zero_grad`` comes between ``after_step`` and ``after_batch``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastai.callback.core import Callback, CancelFitException
from fastai.optimizer import OptimWrapper
from torch import Tensor

from colordim.column import OF_PARAMETERS
from colordim.errors import RecordingError
from colordim.integrations.fastai.steps import StepGate, Steps
from colordim.integrations.session import Session
from colordim.recording.kinds import as_kinds

if TYPE_CHECKING:
    from colordim import Recording, Run

__all__ = ["RecordingCallback"]

# What a recorder of fastai logs besides the metrics: losses are logged batch by batch.
_NO_METRICS = {"epoch", "time", "train_loss", "valid_loss"}


class _Fit:
    """What is known of the fit that is under way; no copy of a callback has any of it."""

    def __init__(self) -> None:
        self.enabled = True  # what fastai calls `run`
        self.session: Session | None = None  # that it is recorded in
        self.aside = False  # whether another loop runs inside of it, or it was left by an exception
        self.forward = False  # whether the model has returned in the batch that is open
        self.cancelled = False  # whether the optimiser was kept from stepping; after_step is fired all the same
        self.steps: Steps | None = None
        self.gate: StepGate | None = None


class RecordingCallback(Callback):  # type: ignore[misc]
    """Records every batch of every fit of a learner, training and validation, into one run.

    ``validate``, ``get_preds``, ``predict``, ``show_results`` and ``lr_find`` are not recorded. What was recorded stays
    when the callback is removed from the learner, as ``fit(cbs=...)`` does at its end.

    Parameters
    ----------
    record_lr_find : bool
        Record each ``lr_find`` as a run of its own, :attr:`lr_find_run`.
    **options
        Those of :func:`colordim.record`: ``kinds, range, bins, layers, every, budget, folder, max_bytes, facets, name,
        ranks, scratch, resume, resume_at``. The optimiser and the scaler are those of the learner.
    """

    order, remove_on_fetch = -20, True
    _stateattrs = ("_fit",)

    def __init__(self, *, record_lr_find: bool = False, **options: Any) -> None:
        self._options = options
        self._record_lr_find = record_lr_find
        self._session = Session(**options)
        self._lr_find: Session | None = None
        self._fit = _Fit()

    def _init_state(self) -> None:  # of a copy; not by __setattr__, which asks a learner that may be half made
        self.__dict__["_fit"] = _Fit()

    def __call__(self, event_name: str) -> None:
        """Handle an event; not as the base class does, to which `run` is a switch."""
        if self._fit.enabled or event_name == "after_fit":
            handler = getattr(type(self), event_name, None)
            if handler is not None:
                handler(self)

    @property
    def run(self) -> Run:
        """The run with its charts, as it is now. Setting it to False switches the callback off until the next fit ends.

        Raises
        ------
        RecordingError
            If nothing was recorded yet.
        """
        return self._session.run

    @run.setter
    def run(self, on: bool) -> None:
        self._fit.enabled = bool(on)

    @property
    def recording(self) -> Recording:
        """What the last fit recorded with.

        Raises
        ------
        RecordingError
            If nothing was recorded yet.
        """
        return self._session.recording

    @property
    def lr_find_run(self) -> Run:
        """The run of the last ``lr_find``.

        Raises
        ------
        RecordingError
            If none was recorded.
        """
        if self._lr_find is None:
            raise RecordingError(
                "no lr_find was recorded: pass record_lr_find=True, and call learn.lr_find().", page="fastai#arguments"
            )
        return self._lr_find.run

    # Events, in their order.

    def before_fit(self) -> None:
        fit = self._fit
        fit.aside = fit.session is not None

    def before_train(self) -> None:
        fit = self._fit
        if fit.session is None or fit.aside:
            self._start()
        if fit.session is not None:
            fit.session.epoch()

    def before_batch(self) -> None:
        fit = self._fit
        if fit.session is not None and self._is_ours():
            self._settle()
            if self.learn.training and fit.session.wants_stop():
                raise CancelFitException
            fit.session.begin("train" if self.learn.training else "valid")

    def after_pred(self) -> None:
        fit = self._fit
        if fit.session is not None and self._is_ours():
            fit.session.forward_over()
            fit.forward = True

    def after_loss(self) -> None:
        fit, learn = self._fit, self.learn
        if fit.session is not None and self._is_ours() and len(learn.yb):
            # Not as a subclass, of which nobody knows whether reading it can wait.
            fit.session.log(loss=learn.loss.detach().as_subclass(Tensor))

    def before_step(self) -> None:
        self._fit.cancelled = False

    def after_cancel_step(self) -> None:
        self._fit.cancelled = True

    def after_step(self) -> None:
        fit = self._fit
        if fit.steps is not None and not fit.cancelled and self._is_ours():
            fit.steps.after_step()

    def after_batch(self) -> None:
        if self._fit.session is not None and self._is_ours():
            self._settle()

    def after_epoch(self) -> None:
        fit = self._fit
        if fit.session is not None and self._is_ours():
            self._settle()
            fit.session.log(**self._metrics())
            if fit.session is self._session:
                self.epoch_over()

    def after_fit(self) -> None:
        fit = self._fit
        fit.enabled = True
        if fit.aside:
            fit.aside = False
        elif fit.session is not None:
            self._settle()
            self._stop("stopped")

    # For classes that derive from this one.

    def options_for(self, learn: Any) -> dict[str, Any]:
        """Return options of :func:`colordim.record` that depend on the learner."""
        return {}

    def fit_begun(self) -> None:
        """Hear that a fit which is recorded begins."""

    def epoch_over(self) -> None:
        """Hear that an epoch which was recorded is over."""

    # Beginning and end.

    def _start(self) -> None:
        """Attach to the model as it is now, and to the optimiser."""
        fit, learn = self._fit, self.learn
        self._stop("interrupted")  # by an exception, of which no event tells
        session = self._session
        if "lr_finder" in vars(learn):
            if not self._record_lr_find:
                return
            session = self._lr_find = Session(**_named(self._options, "lr_find"))
        fit.aside, fit.forward = False, False
        if isinstance(learn.opt, OptimWrapper):
            optimizer, steps = learn.opt.opt, None
        else:
            optimizer = steps = Steps(learn.opt)
        options = self.options_for(learn)
        if vars(learn).get("scaler") is not None:
            options["scaler"] = learn.scaler
        session.start(learn.model, [optimizer], **options)
        fit.session, fit.steps = session, steps
        if steps is not None and set(as_kinds(self._options.get("kinds", "activation"), True)) & set(OF_PARAMETERS):
            fit.gate = StepGate(steps)
            learn.add_cb(fit.gate)
        if session is self._session:
            self.fit_begun()

    def _stop(self, reason: str) -> None:
        fit = self._fit
        if fit.gate is not None and fit.gate.learn is not None:
            fit.gate.learn.remove_cb(fit.gate)
        session, fit.session, fit.steps, fit.gate = fit.session, None, None, None
        if session is not None:
            session.discard()
            session.epoch()  # which will not go on in another fit
            session.stop(reason)

    def _settle(self) -> None:
        """Close the batch that is open, if one is: usually in ``after_batch``, which other callbacks may keep from us."""
        fit = self._fit
        if fit.session is not None and fit.forward:
            fit.session.commit()
        elif fit.session is not None:  # cancelled before the model ran
            fit.session.discard()
        fit.forward = False

    def _is_ours(self) -> bool:
        """Whether an event belongs to the fit, and not to a loop inside of it: a validation, or predictions."""
        return not self._fit.aside and "gather_preds" not in vars(self.learn)

    def _metrics(self) -> dict[str, float]:
        """Return what fastai's recorder has computed at the end of the epoch."""
        recorder = vars(self.learn).get("recorder")
        if recorder is None or recorder.cancel_train or recorder.cancel_valid:
            return {}
        values = dict(zip(recorder.metric_names, recorder.log, strict=False))
        return {
            name: value for name, value in values.items() if name not in _NO_METRICS and isinstance(value, (int, float))
        }


def _named(options: dict[str, Any], suffix: str) -> dict[str, Any]:
    """Return the options for a run beside the one that they are for."""
    named = {key: value for key, value in options.items() if key not in ("resume", "resume_at")}
    if named.get("folder") is not None:
        folder = Path(named["folder"])
        named["folder"] = folder.with_name(f"{folder.name}-{suffix}")
    return named | {"name": f"{named['name']} {suffix}" if named.get("name") else suffix}
