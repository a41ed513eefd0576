"""Errors and warnings name the page that explains them: once, beside the sentence, and also after a journey."""

from __future__ import annotations

import copy
import pickle
import threading
import traceback
import warnings
from collections.abc import Iterator

import pytest

import colordim.cli
import colordim.doctor
from colordim import errors, manual
from colordim.binning import kernel
from colordim.errors import ArgumentError, ColordimError, ColordimWarning, TrainingStopped, warn
from colordim.recording.notices import Notices


def classes(root: type[ColordimError] = ColordimError) -> Iterator[type[ColordimError]]:
    yield root
    for each in root.__subclasses__():
        yield from classes(each)


ALL = list(dict.fromkeys(classes()))


def test_those_of_the_whole_package_are_looked_at() -> None:
    assert {colordim.cli.UsageError, colordim.doctor.NoGPUError, kernel.KernelError} <= set(ALL)
    named = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, ColordimError)]
    assert set(named) <= set(ALL)


@pytest.mark.parametrize("kind", ALL)
def test_each_class_has_a_page_that_exists(kind: type[ColordimError]) -> None:
    assert manual.find(kind.page)


@pytest.mark.parametrize("kind", ALL)
def test_the_page_is_a_note_and_survives_copies(kind: type[ColordimError]) -> None:
    error = kind("a sentence.", page="resume#on-slurm")
    for each in (error, copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(each) is kind
        assert (str(each), each.page) == ("a sentence.", "resume#on-slurm")
        assert each.__notes__ == ["More: colordim docs resume#on-slurm"]
    assert kind("a sentence.").__notes__ == [f"More: colordim docs {kind.page}"]


def test_what_stops_a_training_keeps_its_finding() -> None:
    error = pickle.loads(pickle.dumps(TrainingStopped("stopped.", "finding")))
    assert (error.finding, error.page) == ("finding", "diagnose#while-it-trains")
    assert len(error.__notes__) == 1


def test_a_traceback_shows_it_below_the_sentence() -> None:
    try:
        try:
            raise ArgumentError("no.", page="resume")
        except ArgumentError:
            raise
    except ArgumentError as error:
        lines = traceback.format_exception(error)
    assert "".join(lines).endswith("ArgumentError: no.\nMore: colordim docs resume\n")


def test_a_warning_names_it_in_brackets() -> None:
    with pytest.warns(ColordimWarning, match=r"^gone\. \[colordim docs resume\]$"):
        warn("gone.", "resume")
    with pytest.warns(ColordimWarning, match=r"^gone\.$"):
        warn("gone.")


def test_notices_keep_the_sentence_alone(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices()
    with pytest.warns(ColordimWarning, match=r"^lost\. \[colordim docs pitfalls\]$"):
        notices.say("key", "lost.", "pitfalls")
    assert notices.said == ("lost.",)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notices.say("other", "gone.", "resume")
    assert caplog.messages == ["gone. [colordim docs resume]"]


def test_a_warning_of_a_thread_of_ours_points_at_no_line() -> None:
    def of_the_user() -> None:
        warn("from a line of the user's")

    places = []
    for target, arguments in ((warn, ("from a thread of ours",)), (of_the_user, ())):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            thread = threading.Thread(target=target, args=arguments)
            thread.start()
            thread.join()
        (one,) = caught
        assert one.category is ColordimWarning
        places.append((one.filename, one.lineno))
    assert places[0] == ("colordim", 0)
    assert places[1][0] == __file__
