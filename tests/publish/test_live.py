"""Beside a training epochs are published when they are over, and nothing that goes wrong reaches the training."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import colordim
from colordim.column import Batch
from colordim.errors import ArgumentError, ColordimWarning, DependencyError
from colordim.integrations.session import Session
from colordim.publish import live
from colordim.publish.epochs import Epoch
from colordim.publish.publisher import Publisher
from colordim.publish.target import portable, target, targets
from colordim.store.memory import MemoryStore

torch.set_num_threads(1)


class Keeps:
    """A target that keeps what it gets."""

    name = "a list"

    def __init__(self, draws: bool = False) -> None:
        self.draws = draws
        self.epochs: list[Epoch] = []
        self.threads: set[str] = set()
        self.arrived = threading.Event()
        self.closed = 0

    def publish(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)
        self.threads.add(threading.current_thread().name)
        self.arrived.set()

    def close(self) -> None:
        self.closed += 1

    @property
    def got(self) -> list[tuple[int, int, int]]:
        """Epoch, last batch and elements of the first layer, of all batches of training."""
        return [(e.span.epoch, e.span.last, e.layers[0].counters["size"]) for e in self.epochs]


class Fails(Keeps):
    name = "a wall"

    def publish(self, epoch: Epoch) -> None:
        super().publish(epoch)
        raise OSError("no way")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_INTERVAL", 0.02)
    monkeypatch.setattr(live, "_LONGEST", 0.1)


def train(
    log_to: Any, folder: Path, epochs: Sequence[int] = (3, 3, 2), tell: bool = False, valid: int = 1, **options: Any
) -> tuple[colordim.Recording, list[torch.Tensor]]:
    """Train so many batches of five rows each epoch."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    opt = torch.optim.SGD(net.parameters(), 0.1)
    with colordim.record(net, folder=folder, log_to=log_to, **options) as rec:
        for number in epochs:
            if tell:
                rec.epoch()
            net.train()
            for _ in range(number):
                net(torch.randn(5, 4)).pow(2).mean().backward()
                opt.step()
                opt.zero_grad()
            net.eval()
            with torch.no_grad():
                for _ in range(valid):
                    net(torch.randn(7, 4))
    return rec, [parameter.detach() for parameter in net.parameters()]


def test_each_epoch_is_published_once_and_the_last_when_it_ends(tmp_path: Path) -> None:
    keeps = Keeps()
    rec, _ = train(keeps, tmp_path / "run")
    # 5 rows of 3 outputs a batch; a batch of validation ends each epoch
    assert keeps.got == [(0, 3, 45), (1, 7, 45), (2, 10, 30)]
    assert keeps.threads == {"colordim-publisher"}
    assert keeps.closed == 1
    assert rec.notices == ()
    rec.stop()
    assert keeps.closed == 1


def test_epochs_that_are_told_are_published(tmp_path: Path) -> None:
    keeps = Keeps()
    train(keeps, tmp_path / "run", tell=True, valid=0)
    assert keeps.got == [(0, 2, 45), (1, 5, 45), (2, 7, 30)]


def test_an_epoch_is_published_while_the_next_is_under_way(tmp_path: Path) -> None:
    keeps = Keeps()
    net = nn.Linear(4, 3)
    with colordim.record(net, folder=tmp_path / "run", log_to=keeps) as rec:
        for _ in range(2):
            net(torch.randn(5, 4))
        rec.epoch()
        assert not keeps.arrived.wait(0.2)  # the last batch may still be logged to
        for _ in range(2):
            net(torch.randn(5, 4))
        assert keeps.arrived.wait(20)
        assert keeps.got == [(0, 1, 30)]
        assert not keeps.closed


def test_weights_are_bit_for_bit_the_same(tmp_path: Path) -> None:
    _, without = train(None, tmp_path / "a")
    rec, along = train(["tensorboard", f"csv:{tmp_path / 'tables'}"], tmp_path / "b")
    assert rec.notices == ()
    assert all(torch.equal(a, b) for a, b in zip(without, along, strict=True))
    assert [path.name[:19] for path in (tmp_path / "b" / "tensorboard").iterdir()] == ["events.out.tfevents"]
    lines = (tmp_path / "tables" / "epochs.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 2 * 3  # layers, phases, epochs
    assert colordim.open(tmp_path / "b").ended == "stopped"


def test_the_figure_is_drawn_by_another_process(tmp_path: Path) -> None:
    keeps = Keeps(draws=True)
    train(keeps, tmp_path / "run")
    name, png = keeps.epochs[-1].figures.popitem()  # type: ignore[attr-defined]
    assert name == "activation/train"
    assert png.startswith(b"\x89PNG")


def test_a_target_that_fails_is_said_once_and_others_go_on(tmp_path: Path) -> None:
    keeps, fails = Keeps(), Fails()
    with pytest.warns(
        ColordimWarning, match=r"a wall gets nothing more \(OSError: no way\); the training goes on"
    ) as said:
        rec, _ = train([fails, keeps], tmp_path / "run")
    assert len(said) == 1
    assert len(rec.notices) == 1
    assert [len(fails.epochs), len(keeps.epochs)] == [1, 3]


def test_figures_that_cannot_be_drawn_are_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "nowhere"))
    keeps = Keeps(draws=True)
    with pytest.warns(ColordimWarning, match="figures are not drawn") as said:
        train(keeps, tmp_path / "run")
    assert len(said) == 1
    assert [len(epoch.figures) for epoch in keeps.epochs] == [0, 0, 0]


def test_an_epoch_that_cannot_be_read_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(Publisher, "update", broken)
    with pytest.warns(ColordimWarning, match="could not be read .*the disk is gone") as said:
        train(Keeps(), tmp_path / "run")
    assert len(said) == 1


def test_what_takes_too_long_is_left_behind_with_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_PATIENCE", 0.05)
    go = threading.Event()

    class Slow(Keeps):
        def publish(self, epoch: Epoch) -> None:
            go.wait(20)

    slow = Slow()
    with pytest.warns(ColordimWarning, match="not waited for any longer"):
        train(slow, tmp_path / "run", epochs=(2,))
    go.set()
    until = time.monotonic() + 20
    while not slow.closed and time.monotonic() < until:
        time.sleep(0.01)


def test_several_fits_publish_each_batch_once(tmp_path: Path) -> None:
    keeps = Keeps()
    session = Session(folder=tmp_path / "run", log_to=keeps)
    net = nn.Linear(4, 3)
    for _ in range(2):
        session.start(net)
        session.epoch()
        for _ in range(3):
            session.begin("train")
            net(torch.randn(5, 4))
            session.commit()
        session.stop()
    assert keeps.got == [(0, 2, 45), (1, 5, 45)]


def test_a_copy_of_a_session_holds_no_open_writer(tmp_path: Path) -> None:
    keeps = Keeps()
    session = Session(folder=tmp_path / "run", log_to=[keeps, "csv"])
    other = copy.deepcopy(session)
    net = nn.Linear(4, 3)
    other.start(net)
    other.begin("train")
    net(torch.randn(5, 4))
    other.commit()
    other.stop()
    assert keeps.epochs == []
    assert (tmp_path / "run" / "csv" / "epochs.csv").exists()
    assert portable("wandb") == "wandb"
    assert portable(keeps) is None


def test_only_rank_0_publishes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "a"}.items():
        monkeypatch.setenv(name, value)
    keeps = Keeps()
    train(keeps, tmp_path / "run")
    assert (tmp_path / "run" / "rank=1").is_dir()
    assert keeps.epochs == []
    assert keeps.closed == 0


def test_an_epoch_that_ranks_lack_batches_of_waits_for_one_more() -> None:
    from colordim.axis import LinearAxis
    from colordim.column import Stream

    class Ranks(MemoryStore):
        partial: tuple[bool, ...] = (False,) * 4

        def batches(self) -> Any:
            import numpy as np

            return {**super().batches(), "partial": np.array(self.partial[: len(super().batches()["batch"])])}

    import numpy as np

    store, keeps = Ranks(), Keeps()
    stream = Stream(0, "a", "activation", "", "", (), 0, LinearAxis(0, 1, 1))
    store.declare(stream)
    publisher = Publisher([keeps])
    seen = []
    for number in range(4):  # an epoch each
        row = np.array([1, 0, 0, 0, 0, 0, 0, 1, 1])
        store.append(Batch(number, number, "train", number, 0, 0.0), [stream], row, np.ones((1, 4)))
        store.partial = tuple(each >= number - 1 for each in range(4))
        publisher.update(colordim.Run(store))
        seen.append([epoch for epoch, _, _ in keeps.got])
    assert seen == [[], [], [0], [0, 1]]
    publisher.update(colordim.Run(store), final=True)
    assert [epoch for epoch, _, _ in keeps.got] == [0, 1, 2, 3]


@pytest.mark.parametrize("log_to", ["tensorboards", 3, ["csv", object()]])
def test_what_cannot_be_published_to_is_refused_before_the_training(log_to: Any, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"tensorboard, wandb, csv"):
        colordim.record(nn.Linear(2, 2), folder=tmp_path / "run", log_to=log_to)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_package_that_is_missing_is_one_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> None:
        raise ModuleNotFoundError(module)

    monkeypatch.setattr("colordim.publish.target.import_module", missing)
    with pytest.raises(
        DependencyError, match=rf'needs {name}, which is not installed: pip install "colordim\[{name}\]"\.'
    ):
        target(name)
    assert [each.name for each in targets("csv")] == ["CSV"]
