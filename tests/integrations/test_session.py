"""A session keeps several fits in one run, counts only inside its windows, and is inert when it is copied."""

import copy
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import colordim
from colordim.diagnosis import Finding
from colordim.errors import ArgumentError, ColordimWarning, RecordingError
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


def test_options_of_one_fit_take_the_place_of_those_of_the_session(tmp_path: Path) -> None:
    net, session = model(), Session(folder=tmp_path / "run", layers="0")
    session.start(net, layers="1", name="late")
    batches(session, net, 1)
    session.stop()
    assert session.options["layers"] == "0"
    assert [stream.name for stream in session.run.streams] == ["1"]
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


def test_an_expected_batch_opens_with_the_first_output(tmp_path: Path) -> None:
    net, session = model(), Session(folder=tmp_path / "run")
    session.start(net)
    batches(session, net, 1)
    session.expect("valid")
    session.log(loss=1)  # of the batch before, as no layer has run yet
    with torch.no_grad():
        net(torch.randn(2, 4))
        session.log(loss=2)
        net(torch.randn(3, 4))
    session.commit()
    session.expect("valid")
    session.discard()
    net(torch.randn(7, 4))
    session.expect("valid")
    net(torch.randn(7, 4))
    batches(session, net, 1)  # which forgets it
    session.expect("valid")
    session.commit()  # of a batch in which no recorded layer ran
    session.stop()
    run = session.run
    assert [str(phase) for phase in run.batches["phase"]] == ["train", "valid", "train", "valid"]
    assert run.moments("0", "valid")["size"].tolist() == [15, 0]
    assert run.moments("0")["size"].tolist() == [15, 15]
    assert run.batches["loss"][:2].tolist() == [1, 2]


def test_outputs_that_do_not_count(tmp_path: Path) -> None:
    net, session, said = model(), Session(folder=tmp_path / "run"), {"when": False, "unless": False}
    session.start(net, unless=lambda: said["unless"])
    session.expect("valid", lambda: said["when"])
    net(torch.randn(7, 4))
    said["when"], said["unless"] = True, True
    net(torch.randn(7, 4))
    colordim.observe("seen", torch.ones(3))
    said["unless"] = False
    net(torch.randn(2, 4))
    said["unless"] = True
    net(torch.randn(7, 4))
    colordim.observe("seen", torch.ones(3))
    said["unless"] = False
    colordim.observe("seen", torch.ones(1))
    session.commit()
    session.stop()
    assert session.run.moments("0", "valid")["size"].tolist() == [6]
    assert session.run.moments("seen", "valid")["size"].tolist() == [1]


def test_what_is_observed_opens_an_expected_batch(tmp_path: Path) -> None:
    session = Session(folder=tmp_path / "run")
    session.start(model())
    session.expect("valid")
    colordim.observe("seen", torch.ones(3))
    session.commit()
    session.stop()
    assert session.run.moments("seen", "valid")["size"].tolist() == [3]


def test_batches_are_expected_one_at_a_time(tmp_path: Path) -> None:
    with colordim.record(model(), folder=tmp_path / "run") as recording:
        with pytest.raises(ArgumentError, match="'test' is not a phase"):
            recording.expect("test")  # type: ignore[arg-type]
        recording.begin("train")
        with pytest.raises(RecordingError, match="open already"):
            recording.expect("valid")
        recording.discard()


def test_a_batch_that_was_never_committed_is_not_kept(tmp_path: Path) -> None:
    net, session = model(), Session(folder=tmp_path / "run")
    session.start(net)
    batches(session, net, 1)
    session.begin("train")
    net(torch.randn(7, 4))
    session.recording.stop("the process ended")  # as it does after an exception
    assert session.run.length("train") == 1


def test_a_fit_without_batches_is_stopped_without_a_word(tmp_path: Path) -> None:
    net, session = model(), Session(folder=tmp_path / "run", kinds="all")
    session.start(net, [torch.optim.SGD(net.parameters())])
    session.stop()
    assert session.recording.notices == ()


def test_a_new_session_goes_on_where_an_exception_has_left_another(tmp_path: Path) -> None:
    net, left = model(), Session(folder=tmp_path / "run")
    left.start(net)
    batches(left, net, 2)
    state = left.state_dict()
    batches(left, net, 1)  # and an exception of which nobody is told
    other = Session(folder=tmp_path / "run")
    other.load_state_dict(state)
    other.start(net)
    batches(other, net, 1, rows=6)
    other.stop()
    assert other.path == left.path
    assert other.run.moments("0")["size"].tolist() == [15, 15, 18]


def test_the_scaler_of_a_framework_is_taken_unless_one_is_given(tmp_path: Path) -> None:
    scales = []
    for given in ({}, {"scaler": torch.amp.GradScaler("cpu", init_scale=1.0)}):
        net, session = model(), Session(folder=tmp_path / "run", kinds="gradient", **given)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        session.start(net, scaler=scaler)
        session.begin("train")
        scaler.scale(net(torch.ones(5, 4)).sum()).backward()
        session.commit()
        session.stop()
        scales.append(session.run.moments("1")["sum"].tolist())
    assert scales == [[15.0], [15.0 * 8]]  # each of 15 outputs has a gradient of one


def test_wrong_options_are_told_at_once() -> None:
    with pytest.raises(ArgumentError, match="there is no option 'nbins': did you mean 'bins'"):
        Session(nbins=100)
    with pytest.raises(ArgumentError, match=r"no option 'xyzzy': see help\(colordim.record\)"):
        Session(xyzzy=1)
    with pytest.raises(ArgumentError, match="leave optimizer= out"):
        Session(optimizer=1)


def test_functions_of_findings_are_in_no_copy(tmp_path: Path) -> None:
    session = Session(folder=tmp_path / "run", on_finding=["stop", lambda finding: None])
    for other in (copy.deepcopy(session), pickle.loads(pickle.dumps(session))):
        assert other.options["on_finding"] == ["stop"]


def test_a_managed_recording_says_that_it_wants_to_stop_and_raises_nothing(tmp_path: Path) -> None:
    net, session = model(), Session(folder=tmp_path / "run", on_finding="stop")
    session.start(net)
    assert not session.wants_stop()
    finding = Finding("plateau", "problem", "it does not move", (), 0, 1, (), "why")
    with pytest.warns(ColordimWarning, match="has stopped the training. Problem: it does not move"):
        session.recording._halt(finding)
    assert session.wants_stop()
    assert session.recording.stopped_by is finding
    batches(session, net, 1)
    session.stop()
    assert session.run.length("train") == 1


def test_all_ranks_stop_together(tmp_path: Path) -> None:
    """Two processes, of which only the first has found something."""
    torch.multiprocessing.spawn(_rank, (str(tmp_path / "meet"),), 2)  # type: ignore[attr-defined]


def _rank(rank: int, meet: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    session = Session(on_finding="stop")
    assert not session.wants_stop()
    session._attached, session._recording = rank == 0, SimpleNamespace(stopped_by=object())  # type: ignore[assignment]
    assert session.wants_stop()
    torch.distributed.destroy_process_group()
