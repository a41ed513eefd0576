"""Marks at the right batches, colour bars whose counts are those of their shares, titles that fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from colordim.charts.colorbar import ColorScale, color_bar
from colordim.charts.marks import batch_axis, epoch_marks, runs_of, zero_line
from colordim.charts.titles import Caption, draw_title, title_height


def marked(ax: Axes, starts: list[int], start: int, stop: int, pixels: int) -> list[float]:
    lines = epoch_marks(ax, starts, range(len(starts)), start, stop, pixels)
    return [float(segment[0, 0]) for segment in lines.get_segments()]


def test_epochs_are_marked_where_they_begin(ax: Axes) -> None:
    assert marked(ax, [0, 62, 124], 0, 186, 500) == [0, 62, 124]
    assert marked(ax, [0, 62, 124], 60, 120, 500) == [62]
    assert marked(ax, [], 0, 10, 500) == []


def test_of_many_epochs_only_round_ones_are_marked(ax: Axes) -> None:
    assert marked(ax, list(range(0, 1000, 10)), 0, 1000, 200) == list(range(0, 1000, 50))


def test_marks_are_numbered_by_the_epoch(ax: Axes) -> None:
    epoch_marks(ax, [0, 50], [7, 8], 0, 100, 400, label=True)
    assert [text.get_text() for text in ax.texts] == ["epoch 7", "8"]


def test_the_x_axis_counts_batches(ax: Axes) -> None:
    batch_axis(ax, 200, 700, 4.0)
    assert ax.get_xlim() == (200, 700)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["200", "300", "400", "500", "600", "700"]
    batch_axis(ax, 0, 1, 0.3)
    assert all(float(tick).is_integer() for tick in ax.get_xticks())


def test_the_zero_line_is_at_zero_and_lets_the_zeros_be_seen(ax: Axes) -> None:
    line: Any = zero_line(ax)
    assert set(line.get_ydata()) == {0.0}
    assert line.is_dashed()
    _, (dash, gap) = line._unscaled_dash_pattern
    assert gap > 2 * dash, "a dead layer's only row, one pixel high, has to be seen"


def test_runs_of_neighbouring_columns() -> None:
    assert runs_of(np.array([True, True, False, True])) == [(0, 2), (3, 4)]
    assert runs_of(np.zeros(3, bool)) == []


def test_counts_on_the_bar_are_those_of_its_shares() -> None:
    figure = Figure(figsize=(3, 4))
    shares, small, large = color_bar(
        figure.add_axes((0.3, 0.1, 0.05, 0.7)), ColorScale("share", 1e-5, 0.5), [("small", 640), ("large", 200_000)]
    )
    for ax, size in ((small, 640), (large, 200_000)):
        for share in (1e-4, 0.03, 0.5):
            at_share = shares.transData.transform((0, share))[1]
            assert ax.transData.transform((0, share * size))[1] == pytest.approx(at_share)
    assert [tick.get_text() for tick in shares.get_yticklabels()] == ["0.001 %", "0.01 %", "0.1 %", "1 %", "10 %"]
    assert [tick.get_text() for tick in large.get_yticklabels()] == ["10", "100", "1k", "10k", "100k"]


def test_a_bar_of_counts_has_counts_alone() -> None:
    figure = Figure(figsize=(3, 4))
    bars = color_bar(figure.add_axes((0.3, 0.1, 0.05, 0.7)), ColorScale("count", 1, 5000), [("unused", 10)])
    assert len(bars) == 1
    assert [tick.get_text() for tick in bars[0].get_yticklabels()] == ["1", "10", "100", "1k"]


def test_the_colours_of_the_bar_are_spread_as_its_ticks() -> None:
    figure = Figure(figsize=(3, 4))
    ax = color_bar(figure.add_axes((0.3, 0.1, 0.05, 0.7)), ColorScale("share", 1e-4, 1.0), [])[0]
    image: Any = ax.images[0]
    assert image.get_transform() == ax.transAxes
    assert image.get_extent() == [0, 1, 0, 1]
    assert np.asarray(image.get_array())[:, 0] == pytest.approx(np.linspace(0, 1, 256))


@pytest.mark.parametrize("width", [1.2, 1.7, 2.4, 4.0, 8.0])
def test_titles_stay_above_their_panel_and_within_its_width(width: float) -> None:
    figure = Figure(figsize=(width + 1, 3), dpi=120)
    ax = figure.add_axes((0.5 / (width + 1), 0.2, width / (width + 1), 0.5))
    caption = Caption(
        "encoder.layers.11.attention.output_$dense", "NonDynamicallyQuantizableLinear",
        "in_features=1024, out_features=512, bias=True", (64, 512, 128, 128), note="zeros 99.99 %", mark="valid",
    )  # fmt: skip
    texts = draw_title(ax, caption, width, 1.5)
    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in texts]
    panel = ax.get_window_extent(renderer)
    assert all(panel.x0 - 1 <= box.x0 and box.x1 <= panel.x1 + 2 for box in boxes)
    assert all(panel.y1 <= box.y0 and box.y1 <= panel.y1 + 120 * title_height(width) for box in boxes)
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    words = " ".join(text.get_text() for text in texts)
    assert "zeros 99.99 %" in words
    assert "valid" in words
