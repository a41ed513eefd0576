"""TensorBoard's own reader gives back our counts, edges, moments, curves and figures."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import colordim
from colordim.axis import SignedLogAxis
from colordim.export.uhi import value_edges
from colordim.publish.publisher import Publisher, export
from colordim.publish.target import target

STEPS = [4, 9, 11]


def read(folder: Path) -> Any:
    return EventAccumulator(str(folder), {"histograms": 0, "scalars": 0, "images": 0, "tensors": 0}).Reload()


def check(events: Any, run: colordim.Run, known: Any) -> None:
    tags = events.Tags()
    assert sorted(tags["histograms"]) == sorted(
        [f"colordim/activation/{phase}/{name}" for phase in ("train", "valid") for name in ("conv.1", "fc")]
        + ["colordim/weight/train/fc.weight"]
    )
    for tag in tags["histograms"]:
        _, kind, phase, name = tag.split("/")
        found = events.Histograms(tag)
        assert [event.step for event in found] == (STEPS if phase == "train" else STEPS[:2])
        for epoch, event in enumerate(found):
            first, last = (5 * epoch, min(5 * epoch + 4, 11)) if phase == "train" else (2 * epoch, 2 * epoch + 1)
            values = known.of(name, phase, first, last)
            finite, histogram = values[np.isfinite(values)], event.histogram_value
            assert (histogram.num, histogram.min, histogram.max) == (finite.size, finite.min(), finite.max())
            np.testing.assert_allclose([histogram.sum, histogram.sum_squares], [finite.sum(), (finite**2).sum()])
            # every bucket holds as many values as NumPy counts between its edges
            edges, axis = np.array(histogram.bucket_limit), run.stream(name, kind).axis
            assert histogram.bucket[0] == 0
            assert sum(histogram.bucket) == finite.size
            ours = np.isin(edges, value_edges(axis)) | (edges == finite.min()) | (edges == finite.max())
            assert ours.all()
            counts = run.counts(run.stream(name, kind), phase, first, last + 1).sum(axis=0)
            assert (
                sorted(c for c in histogram.bucket if c)[-20:]
                == sorted(c for c in [*counts, np.sum(finite < axis.edges[0]), np.sum(finite > axis.edges[-1])] if c)[
                    -20:
                ]
            )
            if not isinstance(axis, SignedLogAxis):
                assert np.histogram(finite, edges)[0].tolist() == list(histogram.bucket[1:])
    means = events.Scalars("colordim.mean/activation/train/fc")
    assert [event.step for event in means] == STEPS
    expected = [known.of("fc", "train", *ends).mean() for ends in ((0, 4), (5, 9), (10, 11))]
    np.testing.assert_allclose([event.value for event in means], expected, rtol=1e-6)
    assert [event.wall_time for event in means] == [1e9 + 60 * number for number in (6, 13, 15)]
    assert [event.value for event in events.Scalars("colordim.dead/activation/train/conv.1")] == [0.25]
    assert [event.step for event in events.Scalars("colordim.nan/activation/train/conv.1")] == [9]
    images = events.Images("colordim/activation/train")
    assert [event.step for event in images] == STEPS
    with Image.open(io.BytesIO(images[-1].encoded_image_string)) as picture:
        assert picture.size == (images[-1].width, images[-1].height)
        assert np.asarray(picture).std() > 10


def test_its_reader_gives_back_what_was_recorded(run: colordim.Run, known: Any, tmp_path: Path) -> None:
    assert export(run, f"tensorboard:{tmp_path / 'tb'}") == 3
    check(read(tmp_path / "tb"), run, known)


@pytest.mark.usefixtures("small_figures")
def test_a_summary_writer_gets_the_same_and_stays_open(run: colordim.Run, known: Any, tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path))
    export(run, writer)
    writer.add_scalar("mine", 1.0, 3)
    writer.close()
    events = read(tmp_path)
    check(events, run, known)
    assert [event.value for event in events.Scalars("mine")] == [1.0]


@pytest.mark.usefixtures("small_figures")
def test_what_was_published_before_a_resume_gives_way(run: colordim.Run, tmp_path: Path) -> None:
    export(run, f"tensorboard:{tmp_path}")
    again = Publisher([target(f"tensorboard:{tmp_path}")], since=10)  # goes on in epoch 1
    again.update(run)
    again.close()
    means = read(tmp_path).Scalars("colordim.mean/activation/train/fc")
    assert [event.step for event in means] == STEPS


@pytest.mark.parametrize(("most", "steps"), [(0, []), (1, [11]), (2, [9, 11]), (None, STEPS)])
def test_figures_are_of_so_many_epochs_and_of_the_last(
    run: colordim.Run, tmp_path: Path, small_figures: list[dict[str, Any]], most: int, steps: list[int]
) -> None:
    export(run, f"tensorboard:{tmp_path}", figures=most)
    events = read(tmp_path)
    assert [e.step for tag in events.Tags()["images"] for e in events.Images(tag)] == steps
    assert small_figures == [{"kind": "activation", "phase": "train", "stop": step + 1} for step in steps]


def test_it_needs_no_torch(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, colordim\nfrom colordim.publish.publisher import export\n"
        f"export(colordim.open({str(folder)!r}), 'tensorboard:{tmp_path / 'tb'}', figures=0)\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
