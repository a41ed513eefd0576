"""Dead, profile and twin peaks: lines and steps against NumPy on the values themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.charts.columns import Columns
from colordim.charts.dead import DeadUnits, dead, dead_units
from colordim.charts.profile import moments_of, profile
from colordim.charts.style import LINE_COLORS
from colordim.charts.titles import Caption
from colordim.charts.twin_peaks import Side, find_peaks, twin_peaks, twin_peaks_figure

Make = Callable[..., Columns]
CAPTION = Caption("fc", "Linear", "8, 2", (64, 2))


@pytest.mark.parametrize("axis", [LinearAxis(-4, 4, 800), SignedLogAxis()], ids=str)
def test_dead_is_the_share_of_zeros_and_near_zeros(make: Make, ax: Axes, axis: Axis) -> None:
    rng = np.random.default_rng(0)
    batches = [np.maximum(rng.normal(size=4000) + i / 4, 0) for i in range(5)]
    drawn: Any = dead(ax, make(batches, axis), axis, 0.05)
    assert drawn.exact.get_data().values == pytest.approx([np.mean(b == 0) for b in batches])
    assert drawn.near.get_data().values == pytest.approx([np.mean(np.abs(b) <= 0.05) for b in batches], abs=0.002)
    assert drawn.exact.get_data().edges.tolist() == [0, 1, 2, 3, 4, 5]


def test_dead_has_gaps_where_the_layer_did_not_run(make: Make, ax: Axes) -> None:
    axis = SignedLogAxis()
    drawn: Any = dead(ax, make([np.zeros(4), None, np.ones(4)], axis), axis)
    np.testing.assert_array_equal(drawn.exact.get_data().values, [1.0, np.nan, 0.0])
    np.testing.assert_array_equal(drawn.near.get_data().values, [1.0, np.nan, 0.0])


def test_profile_is_mean_and_std_of_the_finite_values_with_gaps(make: Make, ax: Axes) -> None:
    axis = LinearAxis(-1, 1, 2)
    batches = [np.array([1.0, 5.0, np.inf]), None, np.array([np.nan]), np.array([2.0, 2.0])]
    columns = make(batches, axis)
    mean, std = moments_of(columns)
    np.testing.assert_array_equal(mean, [3.0, np.nan, np.nan, 2.0])
    np.testing.assert_array_equal(std, [2.0, np.nan, np.nan, 0.0])
    (line,) = profile(ax, [columns], [mean])
    np.testing.assert_array_equal(line.get_ydata(), mean)
    assert line.get_markevery() == [0, 3]  # else neither could be seen


def test_layers_have_hues_of_their_own(make: Make, ax: Axes) -> None:
    columns = make([np.ones(2)], LinearAxis(-1, 1, 2))
    assert [line.get_color() for line in profile(ax, [columns] * 3, [np.ones(1)] * 3)] == list(LINE_COLORS[:3])


def test_dead_units_are_steps_over_their_windows_with_gaps(ax: Axes) -> None:
    windows = DeadUnits(np.array([4, 8, 20]), np.array([7, 15, 23]), np.array([0.25, 0.5, 1.0]), "relu")
    data: Any = dead_units(ax, windows).get_data()
    assert data.edges.tolist() == [4, 8, 16, 20, 24]
    np.testing.assert_array_equal(data.values, [0.25, 0.5, np.nan, 1.0])


@pytest.mark.parametrize("distance", [1.2, 1.3, 2.5, 3.5, 4.4, 6.0, 9.0])
@pytest.mark.parametrize("center", [0.0, 4.0])
def test_no_label_covers_another(distance: float, center: float) -> None:
    """Two peaks so close to each other; between -10 and 10 a label is about one unit high."""
    figure = Figure(figsize=(7.6, 5.6))
    ax = figure.add_axes((0.1, 0.1, 0.87, 0.73))
    edges = np.linspace(-10, 10, 161)
    places = (edges[:-1] + edges[1:]) / 2
    peaks = sum(np.exp(-(((places - center - side * distance / 2) / 0.05) ** 2)) for side in (-1, 1))
    drawn = twin_peaks(ax, {"train": np.asarray(peaks), "valid": np.asarray(peaks)}, edges)
    canvas: Any = FigureCanvasAgg(figure)
    figure.draw(canvas.get_renderer())
    texts: list[Any] = [text for labels in drawn.labels.values() for text in labels]
    assert len(texts) >= 4
    boxes = [text.get_bbox_patch().get_window_extent(canvas.get_renderer()) for text in texts]
    assert not [1 for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]


def test_a_very_long_layer_name_keeps_its_end_and_its_type() -> None:
    axis = LinearAxis(-10, 10, 200)
    caption = Caption("module." * 30 + "head", "Linear", "in_features=8, " * 20, (64, 2))
    one = side(np.ones(9), axis)
    figure = twin_peaks_figure({"train": one, "valid": one}, axis, caption, 0, title="a run's name " * 20)
    canvas: Any = FigureCanvasAgg(figure)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in figure.texts]
    assert all(box.x1 <= figure.bbox.x1 for box in boxes)
    assert any("module.head  Linear  [BS 64" in text.get_text() for text in figure.texts)


def side(values: np.ndarray, axis: Axis, batches: int = 1) -> Side:
    counts = np.histogram(values[values != 0], axis.edges)[0]
    counts[axis.zero_bin] += np.count_nonzero(values == 0)
    outside = [int((values < axis.edges[0]).sum()), int((values > axis.edges[-1]).sum())]
    return counts, batches, np.array([*outside, 0, 0, 0, 0, values.size, batches])


def test_peaks_are_labelled_with_value_and_distance(ax: Axes) -> None:
    rng = np.random.default_rng(1)
    counts, edges = np.histogram(np.concatenate([rng.normal(-5, 0.8, 9000), rng.normal(4, 0.8, 9000)]), 160, (-10, 10))
    low, high = find_peaks(counts / counts.sum(), edges)
    assert (low, high) == pytest.approx((-5, 4), abs=0.3)
    drawn = twin_peaks(ax, {"valid": counts / counts.sum()}, edges)
    texts = [text.get_text().replace("−", "-") for text in drawn.labels["valid"]]
    assert [float(text) for text in texts] == pytest.approx([low, high, high - low], abs=0.01)
    assert texts[1].startswith("+")


def test_twin_peaks_compares_shares_whatever_the_number_of_values() -> None:
    axis = LinearAxis(-10, 10, 200)
    train, valid = np.repeat([-5.05, 5.05], [600, 200]), np.repeat([-5.05, 5.05], [30, 10])
    figure = twin_peaks_figure({"train": side(train, axis, 4), "valid": side(valid, axis)}, axis, CAPTION, 3)
    patches: list[Any] = list(figure.axes[0].patches)
    curves = [patch.get_data().values for patch in patches if not patch.get_fill()]
    assert len(curves) == 2
    assert curves[0] == pytest.approx(curves[1])
    assert curves[0].sum() == pytest.approx(1.0)


def test_twin_peaks_of_few_values_has_fewer_rows() -> None:
    axis = LinearAxis(-10, 10, 200)
    rows = []
    for number in (60, 1_000_000):
        one = side(np.random.default_rng(0).normal(0, 3, number), axis)
        (ax,) = twin_peaks_figure({"train": one, "valid": one}, axis, CAPTION, 0).axes
        steps = [patch for patch in ax.patches if isinstance(patch, StepPatch)]
        shares = steps[-1].get_data()[0]
        rows.append(len(shares))
        assert shares.sum() == pytest.approx(1, abs=0.03)  # whatever their number
    assert rows == [40, 160]


def test_twin_peaks_says_what_is_missing_and_what_is_not_shown() -> None:
    axis = LinearAxis(-10, 10, 200)
    nothing = np.zeros(0)

    def words(figure: Figure) -> str:
        return " ".join(text.get_text() for text in figure.texts)

    figure = twin_peaks_figure({"train": side(np.ones(9), axis), "valid": side(nothing, axis)}, axis, CAPTION, 3)
    assert "No validation in epoch 3." in words(figure)
    figure = twin_peaks_figure({"train": side(nothing, axis), "valid": side(nothing, axis)}, axis, CAPTION, 0)
    assert "No training in epoch 0." in words(figure)
    values = np.append(np.ones(99), 50.0)
    figure = twin_peaks_figure({"train": side(values, axis), "valid": side(values, axis)}, axis, CAPTION, 0)
    assert "train: 1 % beyond the window." in words(figure)
