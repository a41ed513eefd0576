"""What the page draws, pixel by pixel, against NumPy and Matplotlib's colour tables."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Page

import colordim
from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.charts.window import Window
from colordim.column import Batch, Stream
from colordim.store.writer import FolderWriter
from colordim.web.codes import decode, encode

BATCHES = 96

#: What the page is asked for: the canvas within the plot of a layer, and what it says of it.
PIXELS = """async ([name]) => {
  const app = document.getElementById("colordim").colordim;
  const panel = app.panels.find((p) => p.stream.name === name);
  const stage = app.stage;
  stage.draw();
  const rect = panel.plot.getBoundingClientRect();
  const origin = stage.content.getBoundingClientRect();
  const x = Math.round(rect.left - origin.left), y = Math.round(rect.top - origin.top - stage.top);
  const w = Math.round(rect.left - origin.left + rect.width) - x, h = Math.round(rect.top - origin.top - stage.top + rect.height) - y;
  const inner = panel.inner({ x, y, w, h }, 1);
  // what lies over the map (frame, zero line, epochs) is left out: it is painted alone, as the stage does
  const canvas = new OffscreenCanvas(stage.canvas.width, stage.canvas.height);
  const ctx = canvas.getContext("2d", { willReadFrequently: true });
  panel.heat.paint(ctx, inner, panel.view, app.scale, app.colors, app.state.color);
  const image = ctx.getImageData(inner.x, inner.y, inner.w, inner.h);
  const { rows } = panel.heat.projection;
  let text = "";
  for (let i = 0; i < image.data.length; i += 8192) text += String.fromCharCode(...image.data.subarray(i, i + 8192));
  return {
    pixels: btoa(text), width: inner.w, height: inner.h, rows, view: panel.view, batches: panel.heat.width,
    window: panel.window, scale: app.scale, ratio: devicePixelRatio,
  };
}"""


class Layers:
    """Three layers whose counts are known: log buckets, equal bins, and one with NaN and infinities."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(7)
        log, linear = SignedLogAxis(3), LinearAxis(-2.0, 3.0, 60)
        self.axes: dict[str, Axis] = {"wide": log, "equal": linear, "odd": log}
        self.values: dict[str, npt.NDArray[np.float64]] = {
            "wide": rng.normal(0, 1, (BATCHES, 3000)) * np.linspace(0.2, 2.5, BATCHES)[:, None],
            "equal": rng.normal(0.5, 1, (BATCHES, 2000)),
            "odd": np.maximum(rng.normal(0, 1, (BATCHES, 1000)), 0),
        }
        self.values["odd"][50:60, :7] = np.nan
        self.values["odd"][70, :5] = np.inf
        writer = FolderWriter(folder, {"name": "pixels"})
        streams = [
            Stream(i, name, "activation", "Linear", "", (10, 100), i, axis)
            for i, (name, axis) in enumerate(self.axes.items())
        ]
        for stream in streams:
            writer.declare(stream)
        self.counts: dict[str, npt.NDArray[np.int64]] = {
            name: np.zeros((BATCHES, axis.bins), np.int64) for name, axis in self.axes.items()
        }
        for batch in range(BATCHES):
            rows, moments = zip(*(self.column(stream.name, batch) for stream in streams), strict=True)
            now = Batch(batch, batch, "train", batch // 32, batch, time.time(), True, {"loss": 1 / (1 + batch)})
            writer.append(now, streams, np.concatenate(rows), np.array(moments))
        writer.close("stopped")

    def column(self, name: str, batch: int) -> tuple[npt.NDArray[np.int64], list[float]]:
        values, edges = self.values[name][batch], self.axes[name].edges
        finite = values[np.isfinite(values)]
        if isinstance(self.axes[name], SignedLogAxis):
            # edges repeat at zero, which numpy.histogram does not take
            place = np.where(
                finite < 0, np.searchsorted(edges, finite, "left") - 1, np.searchsorted(edges, finite, "right") - 1
            )
            place[finite == 0] = self.axes[name].zero_bin
            outside = np.zeros(2, np.int64)
        else:
            place = np.searchsorted(edges, finite, "right") - 1
            outside = np.array([(finite < edges[0]).sum(), (finite > edges[-1]).sum()])
            place = place[(finite >= edges[0]) & (finite <= edges[-1])]
        counts = np.bincount(place, minlength=self.axes[name].bins)
        self.counts[name][batch] = counts
        odd = [np.isnan(values).sum(), np.isposinf(values).sum(), np.isneginf(values).sum()]
        row = np.concatenate([counts, outside, odd, [(finite == 0).sum(), values.size, 1]]).astype(np.int64)
        return row, [finite.sum(), (finite**2).sum(), finite.min(), finite.max()]


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layers, Path]:
    folder = tmp_path_factory.mktemp("pixels")
    made = Layers(folder / "run")
    return made, colordim.open(folder / "run").report(folder / "report.html")


def expected(layers: Layers, name: str, drawn: Any, table: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the picture, ``[height, width, 4]``, that the page should have drawn."""
    axis, rows, shown = layers.axes[name], drawn["rows"], drawn["window"]
    window = Window(shown["lo"], shown["hi"], shown["scale"], shown["linthresh"])
    matrix = axis.project(window.edges(rows))
    width = drawn["batches"]
    counts = decode(encode(layers.counts[name])).reshape(-1, width, axis.bins).sum(axis=1)
    filled = matrix @ counts.T  # [rows + 2, columns]
    values = layers.values[name].reshape(counts.shape[0], -1)
    filled[0] += (values < axis.edges[0]).sum(axis=1) - np.isneginf(values).sum(axis=1)
    filled[-1] += (values > axis.edges[-1]).sum(axis=1) - np.isposinf(values).sum(axis=1)
    cells = (filled / values.shape[1]).astype(np.float32)
    # the page looks colours up by the sign, the exponent and 8 bits of the mantissa
    short = (cells.view(np.uint32) & np.uint32(0xFFFF8000)).view(np.float32).astype(np.float64)
    low, high = drawn["scale"]["low"], drawn["scale"]["high"]
    # the scale is that of all layers: it reaches over the cells of each, or over six decades
    assert cells.max() <= high * (1 + 1e-6)
    assert low <= cells[cells > 0].min() * (1 + 1e-6) or np.isclose(high / low, 1e6)
    with np.errstate(divide="ignore"):
        step = np.floor(256 * np.log(short / low) / np.log(high / low)).clip(0, 255)
    picture = np.zeros((*cells.shape, 4), np.uint8)
    picture[cells > 0] = np.concatenate(
        [table[step[cells > 0].astype(int)], np.full(((cells > 0).sum(), 1), 255)], axis=1
    )
    height = drawn["height"]
    strip, gap = max(round(0.045 * height), 3), max(round(0.012 * height), 1)
    inside = height - 2 * (strip + gap)
    out = np.zeros((height, drawn["width"], 4), np.uint8)
    column = places(drawn).astype(int)
    row = ((np.arange(inside) + 0.5) / inside * rows).astype(int)
    out[strip + gap : strip + gap + inside] = picture[1:-1][::-1][row][:, column]
    out[:strip], out[height - strip :] = picture[-1, column], picture[0, column]
    return out


def places(drawn: Any) -> npt.NDArray[np.float64]:
    """Return the column in which the middle of each pixel lies: the page draws 128 of them between two whole pixels."""
    scale = drawn["width"] / (drawn["view"]["to"] - drawn["view"]["from"])
    left, right = (round((batch - drawn["view"]["from"]) * scale) for batch in (0, 128 * drawn["batches"]))
    return (np.arange(drawn["width"]) + 0.5 - left) / (right - left) * 128


def settled(page: Page, panels: int) -> None:
    """Wait until all panels are drawn; in small steps, since the page's policy forbids the eval() of wait_for_function."""
    for _ in range(400):
        if page.evaluate(
            "(n) => { const app = document.getElementById('colordim')?.colordim;"
            " return Boolean(app?.settled && app.panels.length === n); }",
            panels,
        ):
            return
        page.wait_for_timeout(25)
    pytest.fail(f"the page has not drawn {panels} panels after 10 s")


def on_border(drawn: Any) -> npt.NDArray[np.bool_]:
    """Return which pixels have their middle on the border of two cells, ``[height, width]``: they may take either."""
    height = drawn["height"]
    strip, gap = max(round(0.045 * height), 3), max(round(0.012 * height), 1)
    inside = height - 2 * (strip + gap)

    def whole(positions: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        return np.abs(positions - positions.round()) < 1e-3

    rows = np.zeros(height, np.bool_)
    rows[strip + gap : strip + gap + inside] = whole((np.arange(inside) + 0.5) / inside * drawn["rows"])
    return rows[:, None] | whole(places(drawn))


@pytest.mark.parametrize("view", ["", "&window=symlog", "&window=own&map=cividis", "&window=-0.5,1.25", "&x=32,64"])
def test_pixels_are_those_of_numpy(page: Page, layers: tuple[Layers, Path], view: str) -> None:
    made, report = layers
    page.goto(f"{report.as_uri()}#theme=light{view}")
    settled(page, 3)
    table = mpl.colormaps["cividis" if "cividis" in view else "viridis"](np.arange(256), bytes=True)[:, :3]
    for name in made.axes:
        drawn = page.evaluate(PIXELS, [name])
        pixels = np.frombuffer(base64.b64decode(drawn["pixels"]), np.uint8).reshape(drawn["height"], drawn["width"], 4)
        should = expected(made, name, drawn, table)
        assert should[..., 3].any()
        different = (pixels != should).any(axis=2) & ~on_border(drawn)
        assert not different.any(), (
            f"{name}: {different.mean():.2%} of the pixels differ, the first at {np.argwhere(different)[0]}"
        )


def test_the_first_batch_with_nan_is_named(page: Page, layers: tuple[Layers, Path]) -> None:
    page.goto(layers[1].as_uri())
    settled(page, 3)
    notes = [each.inner_text() for each in page.locator(".cd-wall .cd-note").all()]
    assert ["NaN or Inf from batch 50" in note for note in notes] == [False, False, True]
    page.get_by_label("order").select_option("trouble")
    settled(page, 3)
    assert page.locator(".cd-wall h3").first.inner_text() == "odd"
