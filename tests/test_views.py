"""Whole figures: from a run to its artists, for runs of every kind, without a warning and without global state."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.charts.colorful import MARGIN
from colordim.column import Batch, Phase, Stream
from colordim.errors import AxisError, StreamError
from colordim.store.memory import MemoryStore
from colordim.views import Run

Values = Mapping[str, np.ndarray | None]
AXES: list[Axis] = [LinearAxis(-4, 4, 50), SignedLogAxis()]


def build(
    batches: Sequence[tuple[Phase, int, Values]],
    axis: Axis,
    *,
    name: str = "",
    kind: str = "activation",
    every: int = 1,
) -> Run:
    """A run in memory from the values of every layer in every batch (None: did not fire)."""
    store = MemoryStore({"name": name})
    streams: dict[str, Stream] = {}
    index = {"train": 0, "valid": 0}
    for number, (phase, epoch, layers) in enumerate(batches):
        rows, moments, fired = [], [], []
        for layer, values in layers.items():
            if layer not in streams:
                shape = (4, 8, 5, 5) if layer.startswith("conv") else (64, 10)
                module = "Conv2d" if layer.startswith("conv") else "Linear"
                streams[layer] = Stream(len(streams), layer, kind, module, "1, 8, bias=True", shape, len(streams), axis)  # type: ignore[arg-type]
                store.declare(streams[layer])
            if values is None or index[phase] % every:
                continue
            finite = values[np.isfinite(values)].astype(np.float64)
            top = axis.edges[-1]
            under = finite < axis.edges[0] if isinstance(axis, LinearAxis) else finite <= -top
            over = finite > top if isinstance(axis, LinearAxis) else finite >= top
            inside = finite[~under & ~over]
            counts = np.histogram(inside[inside != 0], axis.edges)[0].astype(np.int64)
            if (inside == 0).any():
                counts[axis.zero_bin] += np.count_nonzero(inside == 0)
            special = [np.isnan(values).sum(), (values == np.inf).sum(), (values == -np.inf).sum(), (finite == 0).sum()]
            rows.append(np.concatenate([counts, [under.sum(), over.sum(), *special, values.size, 1]]).astype(np.int64))
            moments.append([finite.sum(), (finite**2).sum(), finite.min(initial=np.inf), finite.max(initial=-np.inf)])
            fired.append(streams[layer])
        recorded = index[phase] % every == 0
        store.append(
            Batch(number, index[phase], phase, epoch, number, float(number), recorded),
            fired,
            np.concatenate(rows) if rows else np.zeros(0, np.int64),
            np.array(moments).reshape(-1, 4),
        )
        index[phase] += 1
    return Run(store)


def training(axis: Axis, layers: int = 3, epochs: int = 3, batches: int = 8, name: str = "") -> Run:
    """Layers whose spread grows over the run, the later the faster; two validation batches an epoch."""
    rng = np.random.default_rng(0)
    run: list[tuple[Phase, int, Values]] = []
    for epoch in range(epochs):
        for i in range(batches):
            spread = 0.2 + (epoch + i / batches) / epochs
            run.append(
                ("train", epoch, {f"conv{k}": rng.normal(scale=spread ** (k + 1), size=60) for k in range(layers)})
            )
        run += [("valid", epoch, {f"conv{k}": rng.normal(size=60) for k in range(layers)}) for _ in range(2)]
    return build(run, axis, name=name)


def images(figure: Figure) -> list[Any]:
    """The image of the window of each panel; strips and bars left out."""
    return [
        next(image for image in ax.images if image.get_extent()[2:] == pytest.approx(inner))
        for ax in figure.axes
        if (inner := (MARGIN / (1 + 2 * MARGIN), (1 + MARGIN) / (1 + 2 * MARGIN)))
        and any(image.get_extent()[2:] == pytest.approx(inner) for image in ax.images)
    ]


def words(figure: Figure) -> str:
    texts = [*figure.texts, *(text for ax in figure.axes for text in ax.texts)]
    return "\n".join(text.get_text() for text in texts)


def renderer_of(figure: Any) -> Any:
    canvas: Any = FigureCanvasAgg(figure)
    return canvas.get_renderer()


def save(figure: Figure, kind: str = "png", dpi: float | str = "figure") -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=dpi)
    return buffer.getvalue()


DRAWINGS: list[Callable[[Run], Figure]] = [
    lambda run: run.colorful(),
    lambda run: run.colorful(window="own", color="count", mean=True, profiles=True),
    lambda run: run.colorful(window="symlog", phase=("train", "valid"), colorbar="shared", mean=True, profiles=True),
    lambda run: run.colorful(window=(5.0, 7.0), focus=1, colorbar=None),
    lambda run: run.dead(),
    lambda run: run.profile(),
    lambda run: run.twin_peaks(),
]


@pytest.mark.parametrize("axis", [SignedLogAxis(), LinearAxis(-1, 1, 1), LinearAxis(0.5, 3, 7)], ids=str)
@pytest.mark.parametrize(
    "values",
    [
        np.full(6, np.nan),
        np.zeros(6),
        np.array([np.inf, -np.inf, 1.0]),
        np.full(6, 1e9),
        np.full(6, -1e30),
        np.array([1e-45, -3e-7]),
        np.array([2.0]),
    ],
    ids=["nan", "zeros", "inf", "outside", "far outside", "tiny", "one value"],
)
def test_runs_at_the_edge_draw(axis: Axis, values: np.ndarray) -> None:
    for batches, drawings in ((1, DRAWINGS), (4, DRAWINGS[1:3])):
        run = build([("train", 0, {"conv": values, "fc": values})] * batches + [("valid", 0, {"conv": values})], axis)
        for draw in drawings:
            assert save(draw(run), dpi=30).startswith(b"\x89PNG")


@pytest.mark.parametrize("draw", range(len(DRAWINGS)))
def test_runs_without_anything_are_a_sentence(draw: int) -> None:
    for run in (Run(MemoryStore()), build([("train", 0, {})], AXES[0])):
        figure = DRAWINGS[draw](run)
        save(figure)
        assert "Nothing has been recorded yet" in words(figure)


def test_a_layer_that_never_ran_and_a_phase_that_never_came_draw() -> None:
    run = build([("train", 0, {"conv": np.ones(4), "fc": None}), ("train", 0, {"conv": np.ones(4)})], AXES[1])
    for draw in DRAWINGS:
        save(draw(run))
    assert "never ran" in words(run.colorful())
    assert "There are no valid batches" in words(run.colorful(phase="valid"))
    assert "no gradients of the outputs" in words(run.colorful(kind="gradient"))


def test_the_window_is_chosen_from_all_layers_by_hand() -> None:
    axis = LinearAxis(-10, 10, 20)
    layers = {f"conv{k}": np.full(1000, float(k) + 0.5) for k in range(10)}  # in bins that end at 1, 2, ..., 10
    run = build([("train", 0, layers)] * 2, axis)
    labels = [tick.get_text().replace("−", "-") for tick in run.colorful().axes[0].get_yticklabels()]
    assert [float(labels[0]), float(labels[-1])] == [-10, 10]  # nine in ten need 8 + 0.995: the next number is 10
    run = build([("train", 0, {f"conv{k}": np.full(1000, k / 10 + 0.5) for k in range(10)})] * 2, axis)
    labels = [tick.get_text().replace("−", "-") for tick in run.colorful().axes[0].get_yticklabels()]
    assert [float(labels[0]), float(labels[-1])] == [-2, 2]  # values up to 1.3 of nine layers: 1.995 of the bin (1, 2)


def test_an_exploded_layer_does_not_flatten_the_others() -> None:
    values = {"conv": np.linspace(-3, 3, 999), "fc": np.append(np.full(500, 0.5), np.full(500, 1e30))}
    figure = build([("train", 0, values)] * 2, SignedLogAxis()).colorful()
    labels = [tick.get_text().replace("−", "-") for tick in figure.axes[0].get_yticklabels()]
    assert [float(labels[0]), float(labels[-1])] == [-3, 3]
    assert "50 % above" in words(figure)


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_a_shared_window_is_that_of_all_panels_and_an_own_one_is_not(axis: Axis) -> None:
    run = training(axis)
    assert len({ax.get_ylim() for ax in run.colorful(colorbar=None).axes}) == 1
    assert len({ax.get_ylim() for ax in run.colorful(colorbar=None, window="own").axes}) > 1


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("color", ["share", "count"])
def test_every_batch_contributes_when_columns_merge(axis: Axis, color: str) -> None:
    rng = np.random.default_rng(1)
    run = build([("train", 0, {"conv": rng.normal(size=20)}) for _ in range(700)], axis)
    figure = run.colorful(figsize=(2.2, 2.0), colorbar=None, color=color, window=(-4, 4))  # type: ignore[arg-type]
    (image,) = images(figure)
    columns = image.get_array().shape[1]
    width = int(image.get_extent()[1] // columns)
    pixels = figure.axes[0].get_window_extent().width
    assert columns <= pixels
    assert width > 2
    sums = image.get_array().filled(0).sum(axis=0)
    assert sums == pytest.approx(np.full(columns, 1 if color == "share" else 20))
    assert figure.axes[0].get_xlim() == (0, 700)


def test_layers_are_titled_with_all_that_is_known() -> None:
    run = build([("train", 0, {"conv1": np.array([0.0, 1.0]), "fc": np.array([1.0])})], AXES[1], name="lenet")
    said = words(run.colorful())
    for part in (
        "lenet",
        "conv1",
        "Conv2d",
        "zeros 50 %",
        "[BS 4, NF 8, H 5, W 5]",
        "[BS 64, NF 10]",
        "1, 8, bias=True",
    ):
        assert part in said


def test_nan_is_counted_in_batches_even_where_columns_merge() -> None:
    values: list[Values] = [{"conv": np.array([1.0, np.nan if i % 100 == 7 else 2.0])} for i in range(900)]
    values[3] = {"conv": np.array([np.inf])}
    run = build([("train", 0, v) for v in values], AXES[0])
    assert "NaN in 9, Inf in 1 batches" in words(run.colorful(figsize=(2.4, 2.0), colorbar=None))


def test_epochs_are_marked_at_their_first_batch() -> None:
    figure = training(AXES[0]).colorful(0, colorbar=None)
    segments = figure.axes[0].collections
    marks = [c.get_segments() for c in segments if isinstance(c, LineCollection) and len(c.get_segments()) == 3]
    assert [[float(segment[0][0]) for segment in lines] for lines in marks] == [[0, 8, 16]]


def test_validation_is_beside_training_over_the_same_time() -> None:
    run = training(AXES[1])
    figure = run.colorful(phase=("train", "valid"), start=8, stop=16, colorbar=None)
    assert [ax.get_xlim() for ax in figure.axes[:2]] == [(8, 16), (2, 4)]
    assert "conv0 · train" in words(figure)
    assert "conv0 · valid" in words(figure)
    lefts = [ax.get_position().x0 for ax in figure.axes]
    assert lefts[0] == lefts[2] < lefts[1] == lefts[3]


def test_focus_picks_the_layers_that_changed_most_in_call_order() -> None:
    rng = np.random.default_rng(2)
    batches: list[tuple[Phase, int, Values]] = [
        ("train", 0, {"a": rng.normal(i / 10, 1, 200), "b": rng.normal(size=200), "c": rng.normal(i / 30, 1, 200)})
        for i in range(40)
    ]
    said = words(build(batches, AXES[0]).colorful(focus=2))
    assert "a" in said.split("\n")
    assert "c" in said.split("\n")
    assert "b" not in said.split("\n")


def test_profiles_are_those_of_the_epoch_and_its_last_quarter() -> None:
    axis = LinearAxis(-2, 2, 4)
    low, high = np.full(4, -0.5), np.full(4, 0.5)
    run = build([("train", 0, {"conv": v}) for v in (low, low, low, high)], axis)
    figure = run.colorful(profiles=True, colorbar=None, window=(-2, 2))
    lines: list[Any] = list(figure.axes[0].lines)
    grey, black = (line for line in lines if len(line.get_xdata()) > 2)

    def reach(line: Any, sign: int) -> float:
        return float(np.nanmax(line.get_xdata()[np.sign(line.get_ydata()) == sign]))

    assert reach(black, -1) == pytest.approx(0.9 * 4 * 0.75)
    assert reach(black, 1) == pytest.approx(0.9 * 4 * 0.25)
    assert reach(grey, 1) == pytest.approx(0.9 * 4)
    assert np.isnan(grey.get_xdata()[grey.get_ydata() < 0]).all()


def test_batches_that_were_not_recorded_repeat_the_last_one() -> None:
    run = build([("train", 0, {"conv": np.ones(4)})] * 20, AXES[0], every=5)
    (image,) = images(run.colorful(colorbar=None))
    assert image.get_array().shape[1] == 20
    assert not np.ma.getmaskarray(image.get_array()).all(axis=0).any()


def test_colour_bars_are_one_each_or_one_for_all_with_counts_of_both_ends() -> None:
    values = {"conv": np.linspace(-1, 1, 5000), "fc": np.linspace(-1, 1, 50)}
    run = build([("train", 0, values)] * 3, AXES[1])
    each, shared, none = (run.colorful(colorbar=bar) for bar in ("each", "shared", None))
    assert [len(figure.axes) for figure in (each, shared, none)] == [2 + 2 * 2, 2 + 3, 2]
    bar, small, large = shared.axes[2:]
    assert np.array(small.get_ylim()) == pytest.approx(50 * np.array(bar.get_ylim()))
    assert np.array(large.get_ylim()) == pytest.approx(5000 * np.array(bar.get_ylim()))
    assert "fc" in small.texts[0].get_text()
    assert "conv" in large.texts[0].get_text()


def test_the_titles_of_sixty_layers_do_not_overlap() -> None:
    rng = np.random.default_rng(3)
    layers = {f"conv_layer{k // 10}.{k % 10}.downsample.with_a_long_name.{k}": rng.normal(size=9) for k in range(60)}
    figure = build([("train", 0, layers)] * 12, AXES[1]).colorful()
    renderer = renderer_of(figure)
    figure.draw(renderer)
    boxes = [text.get_window_extent(renderer) for ax in figure.axes[:60] for text in ax.texts if text.get_text()]
    boxes += [text.get_window_extent(renderer) for text in figure.texts]
    boxes += [t.get_window_extent(renderer) for ax in figure.axes for t in ax.get_xticklabels() if t.get_text()]
    assert len(boxes) > 5 * 60
    overlaps = [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]
    assert not overlaps
    page = figure.bbox
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)


@pytest.mark.parametrize("layers", [1, 2, 3, 5, 11, 23])
@pytest.mark.parametrize("window", ["shared", "own"])
def test_nothing_is_cut_off_at_the_border_of_the_figure(layers: int, window: str) -> None:
    figure = training(AXES[1], layers=layers, epochs=2, batches=6).colorful(window=window)  # type: ignore[arg-type]
    renderer = renderer_of(figure)
    box = figure.get_tightbbox(renderer).transformed(figure.dpi_scale_trans)
    assert figure.bbox.x0 <= box.x0
    assert figure.bbox.y0 <= box.y0
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_vector_files_embed_images(kind: str) -> None:
    run = training(AXES[1], layers=2, epochs=5, batches=60)
    assert len(save(run.colorful(), kind)) < 600_000


def test_a_notebook_shows_the_figure_once_and_pyplot_knows_nothing_of_it() -> None:
    import matplotlib.pyplot as plt

    figure = training(AXES[1]).colorful()
    assert plt.get_fignums() == []
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_drawing_leaves_no_setting_behind_and_heeds_no_dark_style() -> None:
    with mpl.rc_context({"figure.facecolor": "black", "text.color": "white", "axes.facecolor": "black"}):
        before = dict(mpl.rcParams)
        figure = training(AXES[1]).colorful()
        assert dict(mpl.rcParams) == before
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)
    assert all(text.get_color() != "white" for text in figure.texts)


def test_matplotlib_is_imported_only_when_something_is_drawn() -> None:
    code = "import sys, colordim.views; assert 'matplotlib' not in sys.modules and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dead_and_profile_have_a_panel_and_a_line_for_each_layer() -> None:
    run = training(AXES[1], layers=4)
    assert len(run.dead().axes) == 4
    panels: list[Any] = run.profile().axes[:2]
    assert [sum(line.get_linestyle() == "-" for line in ax.lines) for ax in panels] == [4, 4]
    save(training(AXES[1], layers=30, epochs=1, batches=4).profile())


def test_twin_peaks_takes_the_last_quarter_and_the_whole_validation_of_the_epoch() -> None:
    axis = LinearAxis(-10, 10, 40)
    batches: list[tuple[Phase, int, Values]] = []
    for epoch in range(2):
        batches += [("train", epoch, {"fc": np.full(4, 3.2 if i == 3 else -8.0)}) for i in range(4)]
        batches += [("valid", epoch, {"fc": np.full(4, -3.2 - epoch)})] * 2
    run = build(batches, axis)
    peaks = {
        epoch: {ax_line.get_text() for ax_line in run.twin_peaks(epoch=epoch).axes[0].texts if ax_line.get_text()}
        for epoch in (0, -1)
    }
    assert any(text.startswith("+3") for text in peaks[0])
    assert len(peaks[0]) == 2  # one of each side: the first three training batches, at -8, are not in it
    assert any(text.startswith("−3") for text in peaks[0])
    assert any(text.startswith("−4") for text in peaks[-1])
    without = build([b for b in batches if b[0] == "train"], axis).twin_peaks()
    assert "No validation in epoch 1." in words(without)


def test_mistakes_are_told_in_a_sentence() -> None:
    run = training(AXES[1])
    with pytest.raises(AxisError, match="first value must be below"):
        run.colorful(window=(3, 3))
    with pytest.raises(AxisError, match="is no window"):
        run.colorful(window="wide")  # type: ignore[arg-type]
    with pytest.raises(StreamError, match="no stream of the run matches"):
        run.colorful("transformer.*")
    with pytest.raises(ValueError, match="color='red' is unknown"):
        run.colorful(color="red")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="phase='test' is unknown"):
        run.colorful(phase="test")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="focus=0 cannot be"):
        run.colorful(focus=0)
    with pytest.raises(ValueError, match="no epoch 7"):
        run.twin_peaks(epoch=7)
    with pytest.raises(ValueError, match="threshold=-1 cannot be"):
        run.dead(threshold=-1)
    with pytest.raises(AxisError, match="first value must be below"):
        run.twin_peaks(window=(1, 0))
