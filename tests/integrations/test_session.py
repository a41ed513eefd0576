"""A session keeps several fits in one run, counts only inside its windows, and is inert when it is copied."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import colordim
from colordim.errors import RecordingError
from colordim.integrations.session import Session


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU())


def batches(session: Session, net: nn.Module, number: int, rows: int = 5) -> None:
    for _ in range(number):
        session.begin("train")
        net(torch.randn(rows, 4)).sum().backward()
        session.commit()


def test_two_fits_are_one_run(tmp_path: Path) -> None:
    net, session = model(), Session(folder=tmp_path / "run", kinds="all")
    for _ in range(2):
        session.start(net, [torch.optim.SGD(net.parameters())])
        session.epoch()
        batches(session, net, 3)
        session.stop()
        assert not net._forward_hooks
        assert not net[0]._forward_hooks
    run = session.run
    assert run.length("train") == 6
    assert run.batches["epoch"].tolist() == [0, 0, 0, 1, 1, 1]
    assert run.moments("0")["size"].tolist() == [15] * 6
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_only_windows_count_and_nothing_is_said_about_the_rest(tmp_path: Path) -> None:
    net, session = model(), Session(folder=tmp_path / "run")
    session.start(net)
    net(torch.zeros(2, 4))  # a sanity check
    batches(session, net, 1)
    net(torch.zeros(2, 4))
    session.stop()
    assert session.run.length("train") == 1
    assert session.recording.notices == ()


def test_outputs_after_the_forward_pass_are_not_counted_but_gradients_are(tmp_path: Path) -> None:
    net, session = model(), Session(folder=tmp_path / "run", kinds=("activation", "gradient"))
    session.start(net)
    session.begin("train")
    loss = net(torch.randn(5, 4)).sum()
    session.forward_over()
    net(torch.randn(7, 4))  # by a metric
    loss.backward()
    session.commit()
    batches(session, net, 1)
    session.stop()
    assert session.run.moments("0")["size"].tolist() == [15, 15]
    assert session.run.moments(session.run.stream("0", "gradient"))["size"].tolist() == [15, 15]


def test_what_an_exception_left_open_is_forgotten(tmp_path: Path) -> None:
    net, session = model(), Session(folder=tmp_path / "run")
    session.start(net)
    batches(session, net, 2)
    session.begin("train")
    net(torch.randn(9, 4))  # and an exception that fires no event
    session.start(net)
    batches(session, net, 1)
    session.stop()
    assert session.run.moments("0")["size"].tolist() == [15] * 3


def test_a_checkpoint_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    net, session = model(), Session(folder=tmp_path / "run")
    session.start(net)
    batches(session, net, 2)
    state = session.state_dict()
    batches(session, net, 5)
    session.stop()
    other = Session(folder=tmp_path / "run")
    other.load_state_dict(state)
    other.start(net)
    batches(other, net, 1, rows=6)
    other.stop()
    assert other.run.moments("0")["size"].tolist() == [15, 15, 18]


def test_a_run_that_is_gone_is_begun_anew_with_a_word(tmp_path: Path) -> None:
    net, session = model(), Session(folder=tmp_path / "run")
    session.load_state_dict({"run": str(tmp_path / "gone"), "train": 3, "valid": 0, "epoch": 0, "step": 3, "rank": 0})
    with pytest.warns(UserWarning, match="gone is not there any more"):
        session.start(net)
    batches(session, net, 1)
    session.stop()
    assert session.run.length("train") == 1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda session: pickle.loads(pickle.dumps(session))])
def test_a_copy_is_inert_and_knows_the_run(tmp_path: Path, copied) -> None:  # type: ignore[no-untyped-def]
    net, session = model(), Session(folder=tmp_path / "run")
    session.start(net)
    batches(session, net, 1)
    other = copied(session)
    assert not other.attached
    other.begin("train")
    other.stop()
    batches(session, net, 1)
    session.stop()
    assert other.run.length("train") == 2
    other.start(net)  # a training of its own
    batches(other, net, 1)
    other.stop()
    assert Path(other.path or "").name == "run-2"


def test_before_the_first_fit_it_says_so() -> None:
    session = Session()
    assert session.state_dict() == {}
    assert session.path is None
    with pytest.raises(RecordingError, match="train first"):
        session.run  # noqa: B018


def test_switched_off_it_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORDIM", "off")
    net, session = model(), Session(folder=tmp_path / "run")
    session.start(net)
    batches(session, net, 1)
    session.stop()
    session.start(net)
    session.stop()
    assert not (tmp_path / "run").exists()
    assert len(session.run.streams) == 0
    assert isinstance(session.run, colordim.Run)


def test_all_ranks_record_where_rank_0_does(tmp_path: Path) -> None:
    net, told = model(), list[dict[str, Any]]()

    def agree(place: dict[str, Any]) -> dict[str, Any]:
        told.append(place)
        return place if "resume" in place else {"folder": str(tmp_path / "of-rank-0")}

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    session = Session(folder=tmp_path / "run")
    session.start(net, agree=agree)
    batches(session, net, 1)
    session.stop()
    assert told == [{"folder": str(tmp_path / "run-2")}], "what this rank would have taken"
    assert session.path == str(tmp_path / "of-rank-0")
    session.start(net, agree=agree)
    session.stop()
    assert told[1]["folder"] == session.path
    assert told[1]["resume"]["train"] == 1


def test_options_of_one_fit_give_way_to_those_of_the_session(tmp_path: Path) -> None:
    net, session = model(), Session(folder=tmp_path / "run", layers="0")
    session.start(net, layers="1", name="late")
    batches(session, net, 1)
    session.stop()
    assert [stream.name for stream in session.run.streams] == ["0"]
    assert session.run.name == "late"


def test_a_state_of_nothing_but_the_run_is_for_reading(tmp_path: Path) -> None:
    net, session = model(), Session(folder=tmp_path / "run")
    session.start(net)
    batches(session, net, 1)
    session.stop()
    other = Session(folder=tmp_path / "other")
    other.load_state_dict({"run": str(tmp_path / "run")})
    assert other.run.length("train") == 1
    assert other.state_dict() == {}
    other.start(net)
    other.stop()
    assert other.path == str(tmp_path / "other")


def test_a_run_of_more_ranks_is_not_gone_on_with(tmp_path: Path) -> None:
    net, session = model(), Session(folder=tmp_path / "run")
    session.start(net)
    batches(session, net, 1)
    session.stop()
    description = tmp_path / "run" / "rank=0" / "rank.json"
    description.write_text('{"world_size": 2}')
    with (
        pytest.warns(UserWarning, match="was recorded by 2 ranks, and this training has 1, so another one is begun"),
        pytest.warns(UserWarning, match="holds a run already"),
    ):
        session.start(net)
    session.stop()
    assert session.path == str(tmp_path / "run-2")


def test_steps_outside_of_windows_do_not_count(tmp_path: Path) -> None:
    net, session = model(), Session(folder=tmp_path / "run")
    optimizer = torch.optim.SGD(net.parameters())
    session.start(net, [optimizer])
    for _ in range(2):
        optimizer.step()  # of a learning rate finder
        session.begin("train")
        net(torch.randn(5, 4)).sum().backward()
        optimizer.step()
        session.commit()
    session.stop()
    assert session.run.batches["step"].tolist() == [1, 2]
