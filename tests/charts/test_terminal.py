from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colormaps
from rich.console import Console
from rich.style import Style
from rich.text import Text

from colordim.axis import LinearAxis, SignedLogAxis
from colordim.charts.terminal import SHADES, HeatMap, color_bar, draw, draws_blocks, heat_map, limits

AXIS = LinearAxis(0, 4, 4)
#: 4 % into the map, where it is told from a black background.
DARKEST = tuple(round(255 * channel) for channel in colormaps["viridis"](0.04)[:3])


def window(lo: float, hi: float) -> Callable[[int], npt.NDArray[np.float64]]:
    return lambda rows: np.linspace(lo, hi, rows + 1)


def counters(*, size: int, under: int = 0, over: int = 0, nan: int = 0) -> list[int]:
    return [under, over, nan, 0, 0, 0, size, 1]


def tiny(blocks: bool) -> tuple[HeatMap, list[str], Text]:
    """Two batches: 800 and 200 of 1,000 values in the first and last bin; 400 of 500 above, 100 NaN."""
    heat = heat_map(
        [[800, 0, 0, 200], [0, 0, 0, 0]],
        np.array([counters(size=1000), counters(size=500, over=400, nan=100)]),
        AXIS,
        window(0, 4),
        title="conv1",
        width=14,
        height=8 if blocks else 10,
        blocks=blocks,
    )
    low, high = limits([heat])
    text = draw(heat, low=low, high=high, blocks=blocks, width=14)
    return heat, text.plain.splitlines(), text


def style_at(text: Text, character: str) -> Style:
    start = text.plain.index(character)
    spans = [span for span in text.spans if span.start == start]
    assert len(spans) == 1
    assert isinstance(spans[0].style, Style)
    return spans[0].style


def test_half_blocks_show_two_rows_a_line() -> None:
    _, lines, _ = tiny(blocks=True)
    assert lines == [
        "conv1",
        "   ▲40 % │ ▀",  # the mean of 0 and 400 / 500
        "         │▀ ",  # the upper half is the last bin
        "       0 ┤▄ ◂",  # the lower half is the first bin
        "    ▼0 % │  ",
        " NaN/Inf   ×",
        "         └┬─",
        "   batch  0",
    ]


def test_ascii_shows_one_row_a_line() -> None:
    _, lines, _ = tiny(blocks=False)
    # 0.8 is the fullest cell; log(0.2 * 750) / log(0.8 * 750) = 0.783, the eighth of nine shades
    assert [line[10:12] for line in lines[1:7]] == [" @", "% ", "  ", "  ", "@ ", "  "]


def test_the_fullest_cell_has_the_brightest_colour_and_a_single_value_the_darkest() -> None:
    _, _, text = tiny(blocks=True)
    brightest = style_at(text, "▄").color
    assert brightest is not None
    assert brightest.get_truecolor() == (253, 231, 37)  # the end of viridis
    heat = heat_map([[1, 0, 0, 999]], np.array([counters(size=1000)]), AXIS, window(0, 4), width=13, height=7)
    low, high = limits([heat])
    assert low == 0.001
    darkest = style_at(draw(heat, low=low, high=high, width=13), "▄").color
    assert darkest is not None
    red, green, blue = darkest.get_truecolor()
    assert (red, green, blue) == DARKEST
    assert (
        SHADES[0]
        in draw(
            heat_map(
                [[1, 0, 0, 999]], np.array([counters(size=1000)]), AXIS, window(0, 4), width=13, height=9, blocks=False
            ),
            low=low,
            high=high,
            blocks=False,
            width=13,
        ).plain.splitlines()[5]
    )


def test_both_halves_of_a_character_have_their_own_colour() -> None:
    heat = heat_map([[999, 1, 0, 0]], np.array([counters(size=1000)]), AXIS, window(0, 4), width=13, height=7)
    low, high = limits([heat])
    style = style_at(draw(heat, low=low, high=high, width=13), "▀")
    assert style.color is not None
    assert style.bgcolor is not None
    assert style.bgcolor.get_truecolor() == (253, 231, 37)
    assert style.color.get_truecolor() == DARKEST


def test_adjacent_columns_are_added_up_by_a_whole_factor() -> None:
    counts = np.diag([10, 20, 30, 40])[[0, 1, 2, 3, 3]]
    sizes = np.array([counters(size=int(row.sum())) for row in counts])
    heat = heat_map(counts, sizes, AXIS, window(0, 4), width=12 + 2, height=7, color="count")
    assert heat.batches == 3
    assert heat.first.tolist() == [0, 3]
    # (10, 20, 30, 0) over three batches, and twice 40 over two
    assert pytest.approx(np.array([[10 / 3, 20 / 3, 10.0, 0], [0, 0, 0, 40]])) == heat.cells.T
    shares = heat_map(counts, sizes, AXIS, window(0, 4), width=12 + 2, height=7)
    assert pytest.approx(np.array([[1 / 6, 1 / 3, 1 / 2, 0], [0, 0, 0, 1]])) == shares.cells.T


def test_columns_that_hold_several_batches_count_as_so_many() -> None:
    heat = heat_map(
        [[8, 0, 0, 0], [0, 0, 0, 3]],
        np.array([counters(size=8), counters(size=3)]),
        AXIS,
        window(0, 4),
        first=[0, 4],
        number=[4, 1],
        width=20,
        height=7,
        color="count",
    )
    assert heat.cells[:, 0].tolist() == [2, 0, 0, 0]
    assert heat.cells[:, 1].tolist() == [0, 0, 0, 3]
    assert heat.batches == 4


def test_values_outside_the_window_are_in_the_strips() -> None:
    heat = heat_map(
        [[1, 2, 3, 4]], np.array([counters(size=100, under=20, over=70)]), AXIS, window(1, 3), width=20, height=6
    )
    assert heat.below.tolist() == [0.21]
    assert heat.above.tolist() == [0.74]
    assert heat.cells.sum() == pytest.approx(0.05)


@settings(max_examples=60, deadline=None)
@given(
    columns=st.integers(1, 90),
    width=st.integers(40, 90),
    height=st.integers(8, 20),
    seed=st.integers(0, 2**32 - 1),
    blocks=st.booleans(),
)
def test_no_line_is_too_long_and_blank_is_empty(columns: int, width: int, height: int, seed: int, blocks: bool) -> None:
    axis = SignedLogAxis(bits=0)
    random = np.random.default_rng(seed)
    counts = random.integers(0, 3, (columns, axis.bins)) * (random.random((columns, axis.bins)) < 0.1)
    outside = random.integers(0, 2, (columns, 2))
    table = np.zeros((columns, 8), np.int64)
    table[:, :2] = outside
    table[:, 6] = counts.sum(axis=1) + outside.sum(axis=1)
    heat = heat_map(counts, table, axis, window(-3, 3), title="x" * 200, width=width, height=height, blocks=blocks)
    total = (heat.cells.sum(axis=0) + heat.above + heat.below).tolist()
    factor = -(-columns // (width - 12))
    sizes = [table[start : start + factor, 6].sum() for start in range(0, columns, factor)]
    assert total == pytest.approx([1.0 if size else 0.0 for size in sizes])
    low, high = limits([heat])
    lines = draw(heat, low=low, high=high, blocks=blocks, width=width).plain.splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) == height
    repeat = (width - 12) // len(sizes)
    rows = np.asarray(heat.cells[::-1].reshape(-1, 2 if blocks else 1, len(sizes)).max(axis=1) > 0)
    for line, filled in zip(lines[2 : 2 + len(rows)], rows, strict=True):
        drawn = [character != " " for character in line[10 : 10 + len(sizes) * repeat]]
        assert drawn == np.repeat(filled, repeat).tolist()


def test_batches_and_epochs_are_marked_below() -> None:
    n = 100
    counts = np.tile([[1, 0, 0, 0]], (n, 1))
    heat = heat_map(
        counts, np.array([counters(size=1)] * n), AXIS, window(0, 4), epochs=[0, 30, 60, 90], width=112, height=8
    )
    low, high = limits([heat])
    axis, labels = draw(heat, low=low, high=high, width=112).plain.splitlines()[-2:]
    assert [i - 10 for i, c in enumerate(axis) if c == "┴"] == [30, 60, 90]
    assert labels.split() == ["batch", *(str(v) for v in range(0, 100, 10))]
    assert labels.index("50") == 10 + 50 - 1


def test_values_are_labelled_on_both_sides_of_zero() -> None:
    heat = heat_map([[0] * 12], np.array([counters(size=1)]), LinearAxis(-6, 6, 12), window(-6, 6), width=60, height=14)
    lines = draw(heat, low=0.1, high=1, width=60).plain.splitlines()
    labels = [line[:8].strip() for line in lines[2:-3]]
    assert [label for label in labels if label] == ["5", "0", "-5"]


def test_the_colour_bar_names_shares_and_counts() -> None:
    shares, bar, numbers = color_bar(1e-4, 1.0, 20_000, width=76).plain.splitlines()
    assert shares.replace(" %", "%").split() == ["share", "0.01%", "0.1%", "1%", "10%", "100%"]
    assert len(bar) == 10 + 64
    assert numbers.split() == ["count", "2", "10", "100", "1k", "20k"]
    assert color_bar(1, 100, None, color="count", width=60, blocks=False).plain.splitlines()[0].split() == [
        "count",
        "1",
        "10",
        "100",
    ]


@pytest.mark.parametrize(
    ("color_system", "no_color", "encoding", "expected"),
    [
        ("truecolor", False, "utf-8", True),
        ("256", False, "utf-8", True),
        ("standard", False, "utf-8", False),
        (None, False, "utf-8", False),
        ("truecolor", True, "utf-8", False),
        ("truecolor", False, "ascii", False),
    ],
)
def test_blocks_need_colours_and_unicode(
    color_system: str | None, no_color: bool, encoding: str, expected: bool
) -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, force_terminal=True, color_system=color_system, no_color=no_color)  # type: ignore[arg-type]
    assert draws_blocks(console) is expected
