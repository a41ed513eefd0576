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
from colordim.column import Batch, Facet, Phase, Stream, Units
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
    facets: Mapping[str, Facet] = {},
    units: Mapping[int, Sequence[Units]] = {},
    logged: Mapping[str, Sequence[float]] = {},
) -> Run:
    """A run in memory from the values of every layer in every batch (None: did not fire).

    A layer "weight:conv" is the stream "conv" of the kind "weight".
    """
    store = MemoryStore({"name": name})
    streams: dict[str, Stream] = {}
    index = {"train": 0, "valid": 0}
    for number, (phase, epoch, layers) in enumerate(batches):
        rows, moments, fired = [], [], []
        for layer, values in layers.items():
            if layer not in streams:
                shape = (4, 8, 5, 5) if layer.startswith("conv") else (64, 10)
                module = "Conv2d" if layer.startswith("conv") else "Linear"
                own, _, name = layer.rpartition(":")
                streams[layer] = Stream(
                    len(streams), name, own or kind, module, "1, 8, bias=True", shape, len(streams), axis,  # type: ignore[arg-type]
                    facet=facets.get(layer),
                )  # fmt: skip
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
            Batch(number, index[phase], phase, epoch, number, float(number), recorded, _values(logged, number)),
            fired,
            np.concatenate(rows) if rows else np.zeros(0, np.int64),
            np.array(moments).reshape(-1, 4),
            units.get(number, ()),
        )
        index[phase] += 1
    return Run(store)


def _values(logged: Mapping[str, Sequence[float]], batch: int) -> dict[str, float]:
    return {name: values[batch] for name, values in logged.items() if not np.isnan(values[batch])}


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
    lambda run: run.updates(),
    lambda run: run.colorful(by="class"),
]


BY_CLASS: Callable[[Run], Figure] = lambda run: run.colorful("fc", by="class", window="symlog", mean=True)  # noqa: E731


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
    layers = {"conv": values, "fc": values, "weight:conv": values, "update:conv": values, "gradient:fc": values}
    parts = {"fc[0]": Facet("fc", 0, "no")}
    usual = DRAWINGS[:-2] if isinstance(axis, LinearAxis) else [*DRAWINGS[:-1], BY_CLASS]
    for batches, drawings in ((1, usual), (4, DRAWINGS[1:3])):
        batch: list[tuple[Phase, int, Values]] = [("train", 0, {**layers, "fc[0]": values})]
        run = build(batch * batches + [("valid", 0, {"conv": values})], axis, facets=parts)
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
    for draw in DRAWINGS[:-1]:
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
    assert len(training(AXES[1], layers=9, epochs=1, batches=4).profile().axes) == 4  # strips, and their bars


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
    with pytest.raises(ValueError, match="kind='grads' is unknown"):
        run.colorful(kind="grads")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="twin_peaks draws one layer"):
        run.twin_peaks(["conv0", "conv1"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="focus=3 does not apply with by='class': leave it out"):
        run.colorful("conv1", by="class", focus=3)
    with pytest.raises(StreamError, match=r"no classes of 'conv1' were recorded: pass facets=\{\"conv1\": \"class\"\}"):
        run.colorful("conv1", by="class")
    with pytest.raises(ValueError, match="nothing was logged as 'loss': nothing was logged at all"):
        run.scalars("loss")


# The other kinds.


def test_layers_whose_gradients_differ_by_decades_are_all_seen() -> None:
    rng = np.random.default_rng(4)
    layers = {f"gradient:conv{k}": 10.0 ** -(2 * k) * rng.normal(size=400) for k in range(4)}
    run = build([("train", 0, layers)] * 5, SignedLogAxis())
    figure = run.colorful(kind="gradient", colorbar=None)
    for image in images(figure):
        filled = ~np.ma.getmaskarray(image.get_array()).all(axis=1)
        assert filled.mean() > 0.5  # a window of its own: not a line at zero
    assert figure.texts[0].get_text() == "Gradients of the outputs, train"
    assert "row: 1/" in words(figure)
    assert "of the panel's own window" in words(figure)


def test_parameters_that_are_taken_now_and_then_fill_their_panel_until_they_end() -> None:
    taken: list[tuple[Phase, int, Values]] = [
        ("train", 0, {"w": np.ones(4) if i % 5 == 0 else None}) for i in range(20)
    ]
    run = build(taken + [("train", 0, {"w": None})] * 10, AXES[0], kind="update")
    (image,) = images(run.colorful(kind="update", colorbar=None))
    blank = np.ma.getmaskarray(image.get_array()).all(axis=0)
    assert blank.tolist() == [False] * 20 + [True] * 10
    run = build(taken, AXES[0], kind="activation")
    (image,) = images(run.colorful(colorbar=None))
    assert np.ma.getmaskarray(image.get_array()).all(axis=0).sum() == 16  # a layer that did not run is a gap


def test_the_footer_tells_the_rows_of_every_window() -> None:
    run = training(AXES[1], layers=1)
    assert "row: 0.0" in words(run.colorful(window=(-4, 4)))
    assert "% of the value" in words(run.colorful(window="symlog"))


def test_every_kind_has_its_title_and_the_name_of_its_axis() -> None:
    for kind, title in (("weight", "Weights"), ("weight_gradient", "Gradients of the weights"), ("update", "Updates")):
        run = build([("train", 0, {"conv.weight": np.ones(4)})] * 2, AXES[1], kind=kind)
        assert run.colorful(kind=kind).texts[0].get_text().startswith(title)  # type: ignore[arg-type]
    assert "it holds updates of the weights." in words(run.colorful())


def facet_run(classes: int = 3, epochs: int = 2, labels: Sequence[str] = ("no", "yes", "maybe")) -> Run:
    """The logit of class c is c in the first epoch and -c in the second; eight batches of two samples each."""
    names = [labels[c] if c < len(labels) else f"a class with a long name, number {c}" for c in range(classes)]
    facets = {f"head[{c}]": Facet("head", c, names[c]) for c in range(classes)}
    batches: list[tuple[Phase, int, Values]] = []
    for epoch in range(epochs):
        logits = np.tile(np.arange(classes, dtype=np.float64) * (1 - 2 * epoch), (2, 1))
        own = {f"head[{c}]": logits[:, c] for c in range(classes)}
        batches += [("train", epoch, {"conv": np.ones(3), "head": logits.ravel(), **own})] * 8
    return build(batches, LinearAxis(-200, 200, 8000), facets=facets)


def test_facets_do_not_clutter_what_draws_all_layers() -> None:
    run = facet_run()
    assert len(images(run.colorful())) == len(run.dead().axes) == 2
    assert "ctivations of head by class" in words(run.colorful(by="class"))
    assert "win peaks" in words(run.twin_peaks())
    assert any(text.get_text().startswith("head  ") for text in run.twin_peaks().figure.texts)
    assert "head[1] · yes" in words(run.colorful("head[1]"))


def test_by_class_shows_each_class_at_the_end_of_the_last_epoch() -> None:
    figure = facet_run().colorful("head", by="class")
    assert "last quarter of epoch 1" in words(figure)
    small: list[Any] = [ax for ax in figure.axes if ax.patches and ax.patches[0].get_fill()]
    assert [ax.texts[0].get_text() for ax in small] == ["no", "yes", "maybe"]
    for c, ax in enumerate(small):
        values, edges, _ = ax.patches[0].get_data()
        at = np.flatnonzero(values)
        assert values[at].sum() == pytest.approx(1.0)
        assert edges[at[0]] <= -c <= edges[at[-1] + 1]
    panel = figure.axes[0]
    profiles: list[Any] = [line for line in panel.lines if np.size(line.get_xdata()) > 2]
    assert len(profiles) == 2 * (1 + 3)  # of each epoch the layer and its classes
    starts = [np.nanmin(np.asarray(line.get_xdata(), np.float64)) for line in profiles]
    assert all(0 < x < 8 for x in starts[:4])
    assert all(8 < x < 16 for x in starts[4:])


def test_a_hundred_and_twenty_eight_classes_have_a_panel_and_a_label_each() -> None:
    figure = facet_run(classes=128, epochs=1).colorful("head", by="class")
    small = [ax for ax in figure.axes if ax.patches and ax.patches[0].get_fill()]
    assert len({ax.texts[0].get_text() for ax in small}) == 128
    renderer = renderer_of(figure)
    boxes = [ax.texts[0].get_window_extent(renderer) for ax in small]
    assert not [1 for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]
    box = figure.get_tightbbox(renderer).transformed(figure.dpi_scale_trans)
    assert figure.bbox.x0 <= box.x0
    assert figure.bbox.y0 <= box.y0
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1


def test_updates_are_compared_with_the_weight_of_the_same_name() -> None:
    one = np.array([-1.0, 1.0])
    layers = {"weight:conv.w": one, "weight:conv.v": one, "update:conv.w": 0.01 * one, "update:conv.v": np.zeros(2)}
    first: list[tuple[Phase, int, Values]] = [("train", 0, {k: v for k, v in layers.items() if k.startswith("weight")})]
    later: list[tuple[Phase, int, Values]] = [("train", 0, {k: v for k, v in layers.items() if k.startswith("update")})]
    run = build(first + later * 3, SignedLogAxis())
    lines: list[Any] = [line for line in run.updates(start=1).axes[0].lines if np.size(line.get_xdata()) == 3]
    assert lines[0].get_ydata().tolist() == pytest.approx([-2] * 3)  # the weight was seen before the first on show
    assert np.isnan(lines[1].get_ydata()).all()  # not drawn as a number: it is below the floor
    assert len(lines) == 2


def test_updates_of_matrices_alone_unless_others_are_named_and_without_weights_an_error() -> None:
    run = build([("train", 0, {"update:fc": np.ones(2)})] * 2, AXES[1])
    with pytest.raises(StreamError, match="the weights of 'fc' were not recorded, only their updates"):
        run.updates()
    store = MemoryStore()
    for i, (name, kind, shape) in enumerate(
        (name, kind, shape) for name, shape in (("w", (4, 2)), ("b", (4,))) for kind in ("weight", "update")
    ):
        store.declare(Stream(i, name, kind, "Linear", "", shape, i, AXES[0]))  # type: ignore[arg-type]
    store.append(Batch(0, 0, "train", 0, 0, 0.0), (), np.zeros(0, np.int64), np.zeros((0, 4)))
    figure = Run(store).updates()
    assert [text.get_text() for text in figure.legends[0].get_texts()[:-1]] == ["w"]
    assert "1 biases and gains left out" in words(figure)
    assert [text.get_text() for text in Run(store).updates("b").legends[0].get_texts()[:-1]] == ["b"]


def test_dead_shows_dead_units_and_what_they_were_judged_on() -> None:
    packed = Units(0, "relu", "train", 0, 3, 10, np.packbits([1] * 6 + [0] * 4).tobytes())
    later = Units(0, "relu", "train", 4, 7, 10, np.packbits([0] * 10).tobytes())
    values = {"conv": np.ones(4), "relu": np.ones(4), "fc": np.ones(4)}
    run = build([("train", 0, values)] * 8, AXES[1], units={3: [packed], 7: [later]})
    figure = run.dead()
    for ax in figure.axes[:2]:  # the layer, and the activation function that stands for it
        step: Any = ax.patches[2]
        assert step.get_data().values.tolist() == pytest.approx([0.4, 1.0])
        assert step.get_data().edges.tolist() == [0, 4, 8]
    assert len(figure.axes[2].patches) == 2
    zoomed: Any = run.dead("conv", start=2, stop=6).axes[0].patches[2]
    assert zoomed.get_data().edges.tolist() == [2, 4, 6]
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "units never active in a window"
    assert "in a window of 4 batches" in words(figure)
    assert words(figure).count("units judged on relu") == 1  # of the activation function itself it goes without saying
    assert "judged" not in words(run.dead("fc"))


@pytest.mark.parametrize("width", [5.6, 7.0, 9.0, None])
def test_the_legend_of_dead_leaves_its_label_room(width: float | None) -> None:
    packed = Units(0, "relu", "train", 0, 3, 10, np.packbits([1] * 6 + [0] * 4).tobytes())
    run = build([("train", 0, {"conv": np.ones(4), "relu": np.ones(4)})] * 4, AXES[1], units={3: [packed]})
    figure = run.dead(figsize=None if width is None else (width, 4.0))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (label,) = [text for text in figure.texts if text.get_text() == "batch (train)"]
    assert label.get_window_extent().x0 > 0
    assert label.get_window_extent().x1 < figure.legends[0].get_window_extent().x0
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1


def test_scalars_are_on_the_axis_of_the_training_batches() -> None:
    nan = float("nan")
    batches: list[tuple[Phase, int, Values]] = []
    for epoch in range(2):
        batches += [("train", epoch, {"fc": np.ones(1)})] * 2
        batches += [("valid", epoch, {})] * 2
    logged: dict[str, list[float]] = {
        "loss": [4, 3, 3, 5, 2, 1, 2, 4],
        "lr": [1, 2, nan, nan, 3, 4, nan, nan],
        "step_s": [1.0] * 8,
    }
    run = build(batches, AXES[0], logged=logged)
    figure = run.scalars()
    assert len(figure.axes) == 2
    drawn: list[Any] = [np.asarray(line.get_xydata()).tolist() for line in figure.axes[0].lines]
    assert drawn == [[[0.5, 4], [1.5, 3], [2.5, 2], [3.5, 1]], [[2, 4], [4, 3]]]  # passes: (3 + 5) / 2, (2 + 4) / 2
    assert figure.axes[0].get_xlim() == (0, 4)
    assert len(run.scalars("step_s").axes) == 1
    with pytest.raises(ValueError, match="nothing was logged as 'acc': there is 'loss', 'lr', 'step_s'"):
        run.scalars(["loss", "acc"])
    assert "Nothing was logged" in words(training(AXES[0]).scalars())
    assert "Nothing was logged" in words(Run(MemoryStore()).scalars())


def test_a_loss_that_ends_says_so() -> None:
    batches: list[tuple[Phase, int, Values]] = [("train", 0, {"fc": np.ones(1)})] * 20
    loss = [1.0] * 12 + [float("nan")] * 8
    every = [float(i) if i % 5 == 0 else float("nan") for i in range(20)]
    run = build(batches, AXES[0], logged={"loss": loss, "now_and_then": every})
    assert "nothing after batch 11" in words(run.scalars("loss"))
    assert "nothing after" not in words(run.scalars("now_and_then"))


def test_profile_of_many_layers_is_strips_and_marks_nan_in_both_forms() -> None:
    bad: Values = {f"conv{k}": np.array([1.0, np.nan if k == 1 else 3.0]) for k in range(12)}
    good: Values = {f"conv{k}": np.array([1.0, 3.0]) for k in range(12)}
    run = build([("train", 0, v) for v in (good, bad, good)], AXES[1])
    figure = run.profile()
    means: Any = figure.axes[0]
    assert np.ma.filled(means.images[0].get_array(), 0)[0].tolist() == [2, 2, 2]
    assert np.argwhere(~np.ma.getmaskarray(means.images[1].get_array())).tolist() == [[1, 1]]
    few = run.profile(["conv0", "conv1"])
    assert any("NaN in 1 batch" in text.get_text() for text in few.legends[0].get_texts())
    marks = [c for c in few.axes[0].collections if isinstance(c, LineCollection)]
    assert any([segment[:, 0].tolist() for segment in c.get_segments()] == [[1, 2]] for c in marks)


def test_no_two_panels_have_the_same_title() -> None:
    rng = np.random.default_rng(5)
    names = [f"encoder.layers.{i}.attention.with_a_rather_long_name.{part}" for i in range(20) for part in "qkv"]
    run = build([("train", 0, {name: rng.normal(size=9) for name in names})] * 3, AXES[1])
    for figure in (run.colorful(colorbar=None), run.dead()):
        titles = [next(t.get_text() for t in ax.texts if "…" in t.get_text()) for ax in figure.axes]
        assert len(set(titles)) == 60


def test_gradients_of_validation_and_a_cost_beyond_the_training_are_said() -> None:
    values: Values = {"fc": np.ones(4), "gradient:fc": np.ones(4)}
    batches: list[tuple[Phase, int, Values]] = [("train", 0, values), ("valid", 0, values)]
    cost = {"recording_s": [3.0, 3.0], "step_s": [2.0, 2.0]}
    run = build(batches, SignedLogAxis(), logged=cost)
    assert "no gradients of the outputs of validation batches" in words(run.colorful(kind="gradient", phase="valid"))
    assert "recording took 1.5 times the training time" in words(run.colorful())
