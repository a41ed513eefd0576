"""The fastai callback records exactly the batches of fits, whatever else a learner does, and changes no training."""

import copy
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastai.callback.core import (
        Callback,
        CancelBatchException,
        CancelEpochException,
        CancelFitException,
        CancelStepException,
        FetchPredsCallback,
    )
    from fastai.callback.progress import ProgressCallback
    from fastai.callback.schedule import Learner  # with fit_one_cycle, fine_tune and lr_find
    from fastai.callback.training import GradientAccumulation, GradientClip, ShortEpochCallback
    from fastai.data.core import DataLoaders
    from fastai.learner import load_learner
    from fastai.metrics import accuracy
    from fastai.optimizer import OptimWrapper
    from fastai.torch_core import set_seed

from colordim.errors import RecordingError
from colordim.fastai import RecordingCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:fastai"),
    pytest.mark.filterwarnings("ignore:load_learner:UserWarning"),
    pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning"),
]
torch.set_num_threads(1)


class Data(TensorDataset):
    def new_empty(self) -> "Data":
        return Data(torch.empty(0), torch.empty(0))


class Net(nn.Module):
    """Notes by itself how many values its layers return in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(5, 2)
        self.calls: list[tuple[bool, int, int]] = []
        self.fail_at = -1
        self.error: type[BaseException] = ValueError

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.body(x)
        if len(self.calls) == self.fail_at:
            raise self.error("in the midst of a batch")
        out: Tensor = self.head(self.act(self.norm(hidden)))
        self.calls.append((self.training, hidden.numel(), out.numel()))
        return out


def split(net: Net) -> list[list[nn.Parameter]]:
    return [[*net.body.parameters()], [*net.norm.parameters(), *net.head.parameters()]]


def _silent(_: Any) -> None:
    """In place of fastai's table."""


def learner(folder: Path, cbs: Any = None, net: nn.Module | None = None, **options: Any) -> Any:
    """Return a learner with 3 training batches of 6, and validation batches of 6 and 4."""
    set_seed(0)  # also of the order of the batches
    x = torch.randn(28, 4)
    y = (x.sum(1) > 0).long()
    dls = DataLoaders.from_dsets(
        Data(x[:18], y[:18]), Data(x[18:], y[18:]), bs=6, shuffle=True, device="cpu", num_workers=0
    )
    options = {"splitter": split, "metrics": accuracy, **options}
    learn = Learner(
        dls, net or Net(), loss_func=nn.CrossEntropyLoss(), cbs=cbs, path=folder, **options,
    )  # fmt: skip
    learn.remove_cbs(ProgressCallback)
    learn.logger = _silent
    set_seed(1)
    return learn


def lengths(callback: Any) -> tuple[int, int]:
    return callback.run.length("train"), callback.run.length("valid")


def check(callback: Any, calls: list[tuple[bool, int, int]]) -> None:
    """Compare what was recorded with what the model has noted."""
    run = callback.run
    for phase in ("train", "valid"):
        noted = [call for call in calls if call[0] == (phase == "train")]
        for layer, column in (("body", 1), ("norm", 1), ("act", 1), ("head", 2)):
            moments = run.moments(layer, phase)
            assert moments["size"].tolist() == [call[column] for call in noted], (layer, phase)
            assert moments["calls"].tolist() == [1] * len(noted)
            inside = run.counts(layer, phase).sum(1) + sum(
                moments[name] for name in ("under", "over", "nan", "pos_inf", "neg_inf")
            )
            assert inside.tolist() == moments["size"].tolist()


@pytest.fixture
def recorder(tmp_path: Path) -> RecordingCallback:
    return RecordingCallback(folder=tmp_path / "run")


def test_a_fit(tmp_path: Path, recorder: RecordingCallback) -> None:
    learn = learner(tmp_path, recorder)
    learn.fit(2, lr=0.25)
    check(recorder, learn.model.calls)
    assert lengths(recorder) == (6, 4)
    table = recorder.run.batches
    assert table["epoch"].tolist() == [0] * 5 + [1] * 5
    assert table["step"].tolist() == [1, 2, 3, 3, 3, 4, 5, 6, 6, 6]
    train = table["phase"] == "train"
    assert (table["lr"][train] == 0.25).all()
    assert learn.recording is recorder
    assert not learn.model.body._forward_hooks
    # The losses, weighted by the sizes of their batches, are those that fastai reports.
    valid = table["loss"][~train]
    assert learn.recorder.values[1][1] == pytest.approx((valid[2] * 6 + valid[3] * 4) / 10, rel=1e-6)
    assert [value for value in table["accuracy"] if value == value] == [row[2] for row in learn.recorder.values]
    assert recorder.recording.notices == ()


@pytest.mark.pitfall("fastai's validate and get_preds")
@pytest.mark.parametrize(
    "between",
    [
        lambda learn: learn.validate(),
        lambda learn: learn.get_preds(),
        lambda learn: learn.get_preds(ds_idx=0, with_loss=True),
        lambda learn: learn.lr_find(num_it=6, show_plot=False),
        lambda learn: learn.model(torch.randn(3, 4)),
        lambda learn: (learn.freeze(), learn.unfreeze()),
        lambda learn: learn.load(learn.save("weights").stem),
    ],
    ids=["validate", "get_preds", "with_loss", "lr_find", "model", "freeze", "load"],
)
def test_what_is_no_fit_adds_nothing_and_takes_nothing_away(
    tmp_path: Path, recorder: RecordingCallback, between: Callable[[Any], object]
) -> None:
    learn = learner(tmp_path, recorder)
    between(learn) if learn.opt else learn.create_opt()
    learn.model.calls.clear()
    learn.fit(1)
    calls = list(learn.model.calls)
    between(learn)
    check(recorder, calls)
    del learn.model.calls[:]
    learn.fit(1)
    check(recorder, calls + learn.model.calls)
    assert recorder.run.batches["epoch"].tolist() == [0] * 5 + [1] * 5
    assert recorder.recording.notices == ()
    assert [path.name for path in tmp_path.glob("run*")] == ["run"]


def test_fine_tune_is_one_run(tmp_path: Path, recorder: RecordingCallback) -> None:
    learn = learner(tmp_path, recorder)
    learn.fine_tune(2, freeze_epochs=2)
    check(recorder, learn.model.calls)
    assert lengths(recorder) == (12, 8)
    assert np.unique(recorder.run.batches["epoch"]).tolist() == [0, 1, 2, 3]
    table = recorder.run.batches
    assert (table["lr"] != table["lr_1"])[table["phase"] == "train"][-3:].all()  # those of both parameter groups


def test_a_handle_outlives_its_fit(tmp_path: Path, recorder: RecordingCallback) -> None:
    learn = learner(tmp_path)
    for _ in range(2):
        learn.fit(1, cbs=recorder)
    assert recorder.learn is None
    check(recorder, learn.model.calls)
    assert lengths(recorder) == (6, 4)


def test_before_the_first_fit_it_says_so(recorder: RecordingCallback) -> None:
    with pytest.raises(RecordingError, match="train first"):
        recorder.run  # noqa: B018
    with pytest.raises(RecordingError, match="record_lr_find=True"):
        recorder.lr_find_run  # noqa: B018


@pytest.mark.pitfall("fastai's exceptions")
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_crash_and_another_fit(tmp_path: Path, recorder: RecordingCallback, error: type[BaseException]) -> None:
    learn = learner(tmp_path, recorder, Net())
    learn.model.fail_at, learn.model.error = 1, error
    for _ in range(2):  # the second time at its first batch
        with pytest.raises(error):
            learn.fit(1)
    check(recorder, learn.model.calls)
    assert lengths(recorder) == (1, 0)
    learn.model.fail_at = -1
    learn.validate()
    del learn.model.calls[1:]
    learn.fit(2)
    check(recorder, learn.model.calls)
    assert lengths(recorder) == (7, 4)
    assert recorder.run.batches["epoch"].tolist() == [0] + [1] * 5 + [2] * 5
    assert not learn.model.body._forward_hooks


@pytest.mark.parametrize("order", [-100, 0, 100])
@pytest.mark.parametrize(
    ("event", "exception", "train"),
    [
        ("after_batch", CancelEpochException, 2),
        ("after_batch", CancelFitException, 2),
        ("after_loss", CancelBatchException, 3),
        ("after_pred", CancelBatchException, 3),
        ("before_batch", CancelBatchException, 2),  # the model did not run in the other one
    ],
)
@pytest.mark.pitfall("fastai's cancellations")
def test_cancelled(
    tmp_path: Path, recorder: RecordingCallback, event: str, exception: type[Exception], train: int, order: int
) -> None:
    seen: list[int] = []

    class Cancel(Callback):  # type: ignore[misc]
        def _event(self) -> None:
            seen.append(1)
            if len(seen) == 2:
                raise exception

    Cancel.order = order
    setattr(Cancel, event, Cancel._event)
    learn = learner(tmp_path, [Cancel(), recorder])
    learn.fit(1)
    if (event, order) == ("after_pred", -100):  # the one case in which nothing tells that the model has run
        del learn.model.calls[1]
        train -= 1
    check(recorder, learn.model.calls)
    assert lengths(recorder)[0] == train
    assert recorder.recording.notices == ()
    learn.fit(1)
    check(recorder, learn.model.calls)


def test_short_epochs(tmp_path: Path, recorder: RecordingCallback) -> None:
    learn = learner(tmp_path, [ShortEpochCallback(pct=0.3), recorder])
    learn.fit(2)
    check(recorder, learn.model.calls)
    assert lengths(recorder) == (4, 4)


#: What a learner knows of the batch that it is at.
STATE = ("dl", "training", "xb", "yb", "pred", "iter", "loss", "loss_grad")


@pytest.mark.pitfall("fastai's loops inside of a fit")
def test_loops_inside_of_a_fit_are_not_recorded(tmp_path: Path, recorder: RecordingCallback) -> None:
    kept: list[tuple[bool, int, int]] = []

    class Nested(Callback):  # type: ignore[misc]
        order = 70

        def _aside(self, what: Callable[[], object]) -> None:
            learn = self.learn
            calls, before = list(learn.model.calls), {name: learn.__dict__.get(name) for name in STATE}
            what()
            kept.append(learn.model.calls[-1])
            learn.model.calls[:] = calls
            learn.__dict__.update(before)
            learn.model.train(learn.training)

        def after_loss(self) -> None:
            if self.learn.training and self.learn.iter == 1 and "gather_preds" not in vars(self.learn):
                self._aside(lambda: self.learn.get_preds(inner=True))

        def after_epoch(self) -> None:
            if not self.learn.lock.locked():  # not in the validation that it runs itself
                self._aside(self.learn.validate)

    learn = learner(tmp_path, [Nested(), recorder])
    learn.fit(2)
    assert len(kept) == 4
    check(recorder, learn.model.calls)


def test_fetched_predictions_are_not_recorded(tmp_path: Path, recorder: RecordingCallback) -> None:
    learn = learner(tmp_path, [FetchPredsCallback(), recorder])
    learn.fit(2)
    calls = learn.model.calls
    assert [training for training, *_ in calls] == [True, True, True, False, False, False, False] * 2
    check(recorder, calls[:5] + calls[7:12])


def test_modules_replaced_when_a_fit_begins(tmp_path: Path, recorder: RecordingCallback) -> None:
    class Replace(Callback):  # type: ignore[misc]
        order = 11  # that of DistributedTrainer, which makes batch norm synchronised

        def before_fit(self) -> None:
            self.learn.model.norm = nn.BatchNorm1d(5)

    learn = learner(tmp_path, [Replace(), recorder])
    learn.fit(1)
    check(recorder, learn.model.calls)


def test_switched_off(tmp_path: Path, recorder: RecordingCallback) -> None:
    learn = learner(tmp_path, recorder)
    learn.fit(1)
    learn.recording.run = False  # as with any callback of fastai
    learn.fit(1)
    assert lengths(recorder) == (3, 2)
    learn.fit(1)
    assert lengths(recorder) == (6, 4)


def test_lr_find_as_a_run_of_its_own(tmp_path: Path) -> None:
    recorder = RecordingCallback(folder=tmp_path / "run", record_lr_find=True, kinds=("weight", "activation"))
    learn = learner(tmp_path, recorder)
    learn.fit(1)
    for number in (1, 2):
        learn.lr_find(num_it=7, show_plot=False, stop_div=False)
        assert recorder.lr_find_run.length("train") == 7
        assert Path(recorder.lr_find_run.path).name == ("run-lr_find" if number == 1 else "run-lr_find-2")
        assert np.diff(recorder.lr_find_run.batches["lr"]).min() > 0
    assert lengths(recorder) == (3, 2)
    assert all(type(callback).__name__ != "StepGate" for callback in learn.cbs)


@pytest.mark.parametrize(
    "copied",
    [
        lambda learn: copy.deepcopy(learn),
        lambda learn: pickle.loads(cloudpickle.dumps(learn)),
        lambda learn: (learn.export(), load_learner(learn.path / "export.pkl"))[1],
    ],
    ids=["deepcopy", "pickle", "export"],
)
@pytest.mark.parametrize("crashed", [False, True])
def test_copies_of_a_learner_know_the_run_and_record_nothing(
    tmp_path: Path, copied: Callable[[Any], Any], crashed: bool
) -> None:
    recorder = RecordingCallback(folder=tmp_path / "run", kinds="all")
    learn = learner(tmp_path, recorder)
    learn.fit(1)
    if crashed:
        learn.model.fail_at = 6
        with pytest.raises(ValueError, match="in the midst"):
            learn.fit(1)
        learn.model.fail_at = -1
        learn._end_cleanup()
        learn.loss_grad = None  # with its graph it cannot be copied
    other = copied(learn)
    recorded = lengths(recorder)
    assert other.recording is not recorder
    assert lengths(other.recording) == recorded
    other.model(torch.randn(3, 4))
    other.dls = learn.dls
    other.validate()
    if other.opt is None:
        other.create_opt()
    other.fit(1)
    assert lengths(recorder) == recorded
    assert Path(other.recording.run.path).name == "run-2"
    learn.fit(1)
    assert lengths(recorder) == (recorded[0] + 3, recorded[1] + 2)


OF_TORCH: dict[str, Any] = {"opt_func": lambda params, **options: OptimWrapper(params, torch.optim.Adam, **options)}


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("options", [{}, OF_TORCH], ids=["fastai", "torch"])
def test_the_training_is_bit_for_bit_the_same(tmp_path: Path, options: dict[str, Any]) -> None:
    results = []
    for callbacks in ([], [RecordingCallback(folder=tmp_path / "run", kinds="all")]):
        learn = learner(tmp_path, [GradientClip(0.1), *callbacks], **options)
        with deterministic():
            learn.fine_tune(1)
            learn.lr_find(num_it=6, show_plot=False)
            learn.fit_one_cycle(2, 0.1)
        results.append([*learn.model.state_dict().values(), torch.rand(3)])
    assert all(torch.equal(without, recorded) for without, recorded in zip(*results, strict=True))


class Witness(Callback):  # type: ignore[misc]
    """Takes down what the optimiser uses and does, the last to hear before a step and the first after it."""

    def __init__(self, order: int, taken: dict[str, list[Tensor]], when: str) -> None:
        self.taken, self.when = taken, when
        type(self).order = order

    def _take(self) -> None:
        weight = self.learn.model.body.weight
        self.taken.setdefault(f"{self.when} weight", []).append(weight.detach().clone())
        self.taken.setdefault(f"{self.when} grad", []).append(weight.grad.detach().clone())


class Before(Witness):
    def before_step(self) -> None:
        self._take()


class After(Witness):
    def after_step(self) -> None:
        if not self.learn.model.__dict__.get("cancelled"):
            self._take()


class CancelFirstStep(Callback):  # type: ignore[misc]
    """Does what MixedPrecision does when gradients overflow."""

    order = 10

    def before_step(self) -> None:
        self.learn.model.__dict__["cancelled"] = self.learn.iter == 0
        if self.learn.iter == 0:
            raise CancelStepException


@pytest.mark.pitfall("fastai's optimiser")
@pytest.mark.parametrize("options", [{}, OF_TORCH], ids=["fastai", "torch"])
@pytest.mark.parametrize(
    ("extra", "steps"),
    [([], 6), ([lambda: GradientClip(0.05)], 6), ([lambda: GradientAccumulation(9)], 3), ([CancelFirstStep], 4)],
    ids=["plain", "clip", "accumulation", "overflow"],
)
def test_parameters_are_read_as_the_step_uses_them(
    tmp_path: Path, options: dict[str, Any], extra: list[Callable[[], Any]], steps: int
) -> None:
    taken: dict[str, list[Tensor]] = {}
    recorder = RecordingCallback(folder=tmp_path / "run", kinds=("weight", "weight_gradient", "update"))
    watch = [Before(2000, taken, "before"), After(-90, taken, "after")]
    learn = learner(tmp_path, [recorder, *watch, *(make() for make in extra)], **options)
    learn.fit(2)
    run = recorder.run
    assert len(taken["before weight"]) == len(taken["after weight"]) == steps
    assert run.batches["step"][-1] == steps
    change = [after - before for before, after in zip(taken["before weight"], taken["after weight"], strict=True)]
    for kind, values in (
        ("weight", taken["before weight"]),
        ("weight_gradient", taken["before grad"]),
        ("update", change),
    ):
        moments = run.moments(run.stream("body.weight", kind))  # type: ignore[arg-type]
        stepped = moments["size"] > 0
        assert moments["size"][stepped].tolist() == [20] * steps
        wanted = np.array([float(value.double().sum()) for value in values])
        np.testing.assert_allclose(moments["sum"][stepped], wanted, rtol=1e-9, atol=1e-12)
        wanted = np.array([float(value.double().square().sum()) for value in values])
        np.testing.assert_allclose(moments["sum_sq"][stepped], wanted, rtol=1e-9)
    assert recorder.recording.notices == ()
    assert all(type(callback).__name__ != "StepGate" for callback in learn.cbs)


def test_frozen_parameters_have_no_gradient_and_do_not_change(tmp_path: Path) -> None:
    recorder = RecordingCallback(folder=tmp_path / "run", kinds="all")
    learn = learner(tmp_path, recorder)
    learn.freeze()
    learn.fit(1)
    run = recorder.run
    assert run.moments(run.stream("body.weight", "update"))["zeros"].tolist() == [20] * 3
    assert ("body.weight", "weight_gradient") not in {(stream.name, stream.kind) for stream in run.streams}
    learn.unfreeze()
    learn.fit(1)
    run = recorder.run
    assert (run.moments(run.stream("body.weight", "weight_gradient"))["size"] == 20).sum() == 3


def test_options_are_those_of_record(tmp_path: Path) -> None:
    recorder = RecordingCallback(
        folder=tmp_path / "run", layers=["body", "head"], range=(-3, 3), bins=30, every=2, name="ours",
        facets={"head": ["no", "yes"]},
    )  # fmt: skip
    learner(tmp_path, recorder).fit(1)
    run = recorder.run
    assert [stream.name for stream in run.select()] == ["body", "head"]
    assert run.stream("body").axis.bins == 30
    assert run.batches["recorded"].tolist() == [True, False, True, True, False]
    assert run.name == "ours"
    assert [stream.facet.label for stream in run.facets("head") if stream.facet] == ["no", "yes"]


def test_another_process_goes_on_in_the_run(tmp_path: Path) -> None:
    for fits in (1, 2):
        recorder = RecordingCallback(folder=tmp_path / "run", resume="auto")
        learn = learner(tmp_path, recorder)
        for _ in range(fits):
            learn.fit(1)
    assert lengths(recorder) == (9, 6)
    assert np.unique(recorder.run.batches["epoch"]).tolist() == [0, 1, 2]
    assert not (tmp_path / "run-2").exists()


def test_a_class_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    learn = learner(tmp_path, RecordingCallback)
    learn.fit(1)
    check(learn.recording, learn.model.calls)
    assert Path(learn.recording.run.path).parent.name == "runs"


def test_without_fastai_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['fastai'] = None; import colordim.fastai"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "colordim[fastai]"' in result.stderr.splitlines()[-2]
    assert result.stderr.splitlines()[-1] == "More: colordim docs fastai"


def test_a_finding_stops_the_fit_if_it_may(tmp_path: Path, stops_after: Callable[[int], None]) -> None:
    stops_after(2)
    for on_finding, batches in (("stop", 2), ("log", 6)):
        callback = RecordingCallback(folder=tmp_path / str(batches), on_finding=on_finding)
        learn = learner(tmp_path, callback)
        learn.fit(2)
        assert callback.run.length("train") == batches
        assert callback.run.ended == "stopped"
        assert not learn.model.body._forward_hooks
