"""Text: the names of dimensions, shares and counts, and ellipses that fit."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from colordim.charts.labels import compact, elide, elide_apart, percent, shape_names, shape_text, text_width, tick_text


@pytest.mark.parametrize(
    ("shape", "module", "arguments", "expected"),
    [
        ((64, 8, 14, 14), "Conv2d", "", "[BS 64, NF 8, H 14, W 14]"),
        ((64, 8, 14, 14), "ReLU", "", "[BS 64, NF 8, H 14, W 14]"),
        ((2, 7, 7, 96), "LayerNorm", "", "[2, 7, 7, 96]"),
        ((64, 10), "Linear", "", "[BS 64, NF 10]"),
        ((8, 20, 512), "Linear", "", "[BS 8, T 20, NF 512]"),
        ((8, 20, 512), "Embedding", "", "[BS 8, T 20, NF 512]"),
        ((8, 16, 100), "Conv1d", "", "[BS 8, NF 16, T 100]"),
        ((20, 8, 32), "LSTM", "16, 32", "[20, 8, 32]"),
        ((2, 8, 32), "GRU", "16, 32, batch_first=True", "[2, 8, 32]"),
        ((8, 20, 32), "Dropout", "", "[8, 20, 32]"),
        ((2, 4, 8, 8, 8), "Conv3d", "", "[BS 2, NF 4, D 8, H 8, W 8]"),
        ((5,), "Flatten", "", "[5]"),
        ((), "", "", "[]"),
    ],
)
def test_dimensions_are_named_where_they_are_known(
    shape: tuple[int, ...], module: str, arguments: str, expected: str
) -> None:
    assert shape_text(shape, shape_names(shape, module, arguments)) == expected


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, "0 %"), (1.0, "100 %"), (0.4812, "48 %"), (0.012, "1.2 %"), (1e-9, "< 0.01 %"), (1 - 1e-9, "> 99.99 %"),
        (0.9968, "99.68 %"), (0.994, "99.4 %"), (float("nan"), "no values"),
    ],
)  # fmt: skip
def test_none_and_all_are_said_only_of_none_and_all(share: float, expected: str) -> None:
    assert percent(share) == expected


def test_a_shape_is_shortened_before_its_names_are_dropped() -> None:
    assert shape_text((64, 8, 14, 14), ("BS", "NF", "H", "W"), close=True) == "[BS64 NF8 H14 W14]"


def test_counts_and_ticks_are_short() -> None:
    assert [compact(n) for n in (640, 1200, 200_704, 3e6, 0.01)] == ["640", "1.2k", "201k", "3M", "0.01"]
    assert [tick_text(x) for x in (0.0, -12.5, 1e-7, -2.5e9)] == ["0", "−12.5", "1e−7", "−2.5e9"]
    assert [tick_text(x) for x in (0.001, 0.00015, -0.0001, 5e-4, 1e10)] == ["0.001", "1.5e−4", "−1e−4", "5e−4", "1e10"]


def test_text_is_shortened_at_the_right_end() -> None:
    text = "backbone.layer4.1.conv2"
    assert elide(text, 1000, 8) == text
    short = elide(text, 60, 8, keep="end")
    assert short.startswith("…")
    assert text.endswith(short[1:])
    assert elide(text, 60, 8).endswith("…")
    assert elide(text, 2, 8) == ""


@pytest.mark.parametrize("weight", ["normal", "bold"])
@pytest.mark.parametrize("size", [5.9, 6.8, 8.5])
def test_measured_widths_are_those_that_are_drawn(size: float, weight: str) -> None:
    text = "layer1.0.downsample.1 [BS 64, NF 128] kernel_size=(3, 3) WAVE"
    figure = Figure(dpi=120)
    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    drawn = figure.text(0, 0, text, fontsize=size, fontweight=weight).get_window_extent(renderer).width * 72 / 120
    assert drawn <= text_width(text, size, weight) <= 1.12 * drawn


def test_different_names_stay_different_when_they_are_shortened() -> None:
    names = [f"encoder.layers.{i}.attention.with_a_long_name.{part}" for i in range(12) for part in ("query", "key")]
    short = elide_apart(names, 100, 7)
    assert len(set(short)) == 24
    assert all(text_width(text, 7) <= 100 for text in short)
    assert short[7].startswith("…3…")
    assert short[7].endswith("key")
    assert elide_apart(["conv1", "conv2", "conv1"], 100, 7) == ["conv1", "conv2", "conv1"]


def test_names_that_no_component_tells_apart_are_numbered() -> None:
    short = elide_apart([f"block_{i}_with_a_very_long_name_and_no_component_at_all" for i in range(3)], 60, 7)
    assert [text[:3] for text in short] == ["0 …", "1 …", "2 …"]
    assert all(text_width(text, 7) <= 60 for text in short)
    nested = elide_apart([f"{a}.b.{c}.with_a_very_long_name_for_a_layer" for a in "xy" for c in "xy"], 60, 7)
    assert len(set(nested)) == 4
