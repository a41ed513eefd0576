"""A run as one file, opened from the disk without a network."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

import colordim
from colordim import cli
from colordim.column import PHASES
from colordim.errors import ArgumentError, StoreError, StreamError
from colordim.web import bundle
from colordim.web.answers import answer

RUNS = Path(__file__).parents[1] / "fixtures" / "runs" / "v1"
Ask = Callable[..., bytes]

pytestmark = pytest.mark.usefixtures("static")


@pytest.fixture
def opened(page: Page) -> Callable[[Path], Ask]:
    """Open a report with the network off; return what asks its source, as the page does."""

    def goto(path: Path) -> Ask:
        page.context.set_offline(True)
        page.goto(path.as_uri())
        page.wait_for_function("() => window.source && document.body.innerText.includes('streams')")

        def ask(route: str, **parameters: Any) -> bytes:
            text = page.evaluate(
                """async ([route, parameters]) => {
                  const bytes = new Uint8Array(await source.ask(route, parameters));
                  let text = "";
                  for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
                  return btoa(text);
                }""",
                [route, parameters],
            )
            return base64.b64decode(text)

        return ask

    return goto


@pytest.mark.parametrize("name", ["ended", "ranks", "resumed"])
def test_every_count_comes_back(name: str, opened: Any, tmp_path: Path, tiles: Any) -> None:
    run = colordim.open(RUNS / name)
    ask = opened(run.report(tmp_path / "report.html", exact=True, columns=10))
    head = json.loads(ask("head"))
    assert [row["name"] for row in head["streams"]] == [stream.name for stream in run.streams]
    for phase in PHASES:
        ((width, kept),) = [(level["width"], level["kept"]) for level in head["levels"][phase]]
        assert (kept, head["tile"] <= 10, width) == (0, True, -(-run.length(phase) // 10))
        ids = ",".join(str(stream.id) for stream in run.streams)
        for stream, tile in zip(
            run.streams, tiles(ask("tiles", streams=ids, phase=phase, width=width, index=0)), strict=True
        ):
            block = run.columns(stream, phase)
            fresh = tile["arrays"][1] == 0
            counts = np.zeros(stream.axis.bins, np.int64)
            counts[tile["occupied"]] = tile["counts"][:, fresh].sum(axis=1)
            assert (tile["id"], tile["phase"], tile["columns"]) == (stream.id, phase, -(-run.length(phase) // width))
            np.testing.assert_array_equal(counts, block.counts.sum(axis=0))
            np.testing.assert_array_equal(tile["arrays"][2:10, fresh].sum(axis=1), block.counters.sum(axis=0))


def test_counts_of_a_byte_are_within_six_percent(opened: Any, tmp_path: Path, tiles: Any, write: Any) -> None:
    run = colordim.open(write(tmp_path / "run", 1, 40))
    ask = opened(run.report(tmp_path / "report.html"))
    (tile,) = tiles(ask("tiles", streams=0, phase="train", width=1, index=0))
    counts = run.counts(0).T[tile["occupied"]]
    codes = tile["codes"].astype(np.float64)
    stands_for = np.where(codes <= 16, codes, 16 * 2 ** ((codes - 16) / 6))
    assert (np.abs(stands_for - counts) <= 0.06 * counts).all()
    assert run.counts(0).sum() == counts.sum()


def test_its_other_answers_are_those_of_the_server(opened: Any, tmp_path: Path) -> None:
    run = colordim.open(RUNS / "ended")
    ask = opened(run.report(tmp_path / "report.html", exact=True))
    for stream in run.streams:
        number = str(stream.id)
        for route, asked in (
            ("facts", {"stream": number}),
            ("twin", {"stream": number, "epoch": "1"}),
            ("units", {"stream": number, "phase": "train"}),
            ("scalars", {"phase": "train", "points": "1500"}),
        ):
            assert json.loads(ask(route, **asked)) == json.loads(answer(run, route, asked)), route
    asked = {"stream": "0", "phase": "train", "start": "3", "batches": "8", "width": "1"}
    ours, theirs = json.loads(ask("column", **asked)), json.loads(answer(run, "column", asked))
    assert ours.pop("moments") == {
        name: pytest.approx(value, rel=1e-6) for name, value in theirs.pop("moments").items()
    }
    assert ours == theirs


def test_what_it_does_not_hold_is_said(page: Page, opened: Any, tmp_path: Path) -> None:
    run = colordim.open(RUNS / "ended")
    opened(run.report(tmp_path / "report.html", columns=20, layers=run.streams[0].name, phase="train"))
    said = page.evaluate("""() => Promise.all([
      ["column", {stream: 0, phase: "train", start: 0, batches: 4, width: 1}],
      ["tiles", {streams: "0", phase: "train", width: 1, index: 0}],
      ["tiles", {streams: "0", phase: "train", width: 4, index: 0, exact: 1}],
      ["tiles", {streams: "0,99", phase: "train", width: 4, index: 0}],
      ["shell", {}], ["constructor", {}],
    ].map(([route, parameters]) => source.ask(route, parameters).then(() => "", (error) => error.message)))""")
    assert ["--exact" in said[0], "columns of" in said[1], "--exact" in said[2], "does not hold" in said[3]] == [
        True
    ] * 4, said
    assert said[4:] == ["There is no route shell.", "There is no route constructor."]


def test_a_trimmed_run_shows_all_of_its_batches(opened: Any, tmp_path: Path, tiles: Any) -> None:
    run = colordim.open(RUNS / "trimmed")
    assert run.finest("train") > 0
    ask = opened(run.report(tmp_path / "report.html", exact=True))
    width = json.loads(ask("head"))["levels"]["train"][0]["width"]
    (tile,) = tiles(ask("tiles", streams=0, phase="train", width=width, index=0))
    assert tile["counts"][:, tile["arrays"][1] == 0].sum() == run.counts(0, level=run.finest("train")).sum()


HOSTILE = '</ScRipt><script>document.title = "taken"</script><!--<script>"\'&amp;‮😀'


def test_names_are_never_markup(page: Page, opened: Any, tmp_path: Path, write: Any) -> None:
    run = colordim.open(write(tmp_path / "run", 2, 3, HOSTILE, HOSTILE + "{}"))
    ask = opened(run.report(tmp_path / "report.html"))
    head = json.loads(ask("head"))
    assert (head["name"], head["path"]) == (HOSTILE, "run")
    assert [row["name"] for row in head["streams"]] == [f"{HOSTILE}0", f"{HOSTILE}1"]
    assert page.evaluate("document.title") == f"{HOSTILE} · colordim"
    assert page.evaluate("getComputedStyle(document.getElementById('colordim')).color") == "rgb(1, 2, 3)"
    assert page.evaluate("MARKUP") == "</script><!--<script>"  # in a string of the page's own code
    assert str(tmp_path) not in (tmp_path / "report.html").read_text()


def test_scripts_and_connections_that_are_not_its_own_are_refused(
    page: Page, opened: Any, trouble: list[str], tmp_path: Path
) -> None:
    opened(colordim.open(RUNS / "ended").report(tmp_path / "report.html"))
    page.evaluate("""() => {
      const script = document.createElement("script");
      script.textContent = "document.title = 'taken'";
      document.body.append(script);
      return fetch("https://example.org").catch(() => {});
    }""")
    assert page.title() == "ended · colordim"
    refused = [each for each in trouble if "Content Security Policy" in each]
    assert len(refused) >= 2
    trouble.clear()


def test_the_page_itself_opens(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "STATIC", Path(bundle.__file__).with_name("static"))
    run = colordim.open(RUNS / "ended")
    page.context.set_offline(True)
    page.goto(run.report(tmp_path / "report.html").as_uri())
    page.wait_for_selector(".cd-wall .cd-panel")
    page.wait_for_function("() => !document.getElementById('colordim').colordim.model.store.busy")
    shown = page.locator(".cd-wall .cd-panel h3").all_inner_texts()
    assert shown == [stream.name for stream in run.select()]
    page.keyboard.press("Enter")  # opens a layer, which asks all that a report answers
    page.wait_for_timeout(300)
    drawn = page.evaluate("""() => [...document.querySelectorAll("canvas")].map((canvas) =>
      new Set(new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size)""")
    assert max(drawn) > 10


def test_it_says_when_it_was_made(page: Page, tmp_path: Path, record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "STATIC", Path(bundle.__file__).with_name("static"))
    monkeypatch.setattr("colordim.web.report.time.gmtime", lambda: time.struct_time((2026, 3, 4, 5, 6, 7, 2, 63, 0)))
    recording = record(tmp_path / "run")
    recording.add(8)
    for state in ("not ended", "ended"):
        page.goto(colordim.open(tmp_path / "run").report(tmp_path / "report.html").as_uri())
        page.wait_for_selector(".cd-wall .cd-panel")
        assert page.inner_text(".cd-state") == state
        assert "report of 2026-03-04 05:06 UTC" in page.inner_text(".cd-facts")
        recording.close()


def test_it_holds_nothing_of_a_phase_that_was_not_asked_for(opened: Any, tmp_path: Path) -> None:
    run = colordim.open(RUNS / "ended")
    ask = opened(run.report(tmp_path / "report.html", phase="train"))
    for epochs in (json.loads(ask("head"))["marks"]["epochs"], json.loads(ask("marks"))["epochs"]):
        assert epochs["train"]["first"] == [0, 12, 24, 36, 48, 60]
        assert epochs["valid"] == {"first": [], "number": [], "at": []}


def test_it_is_small(tmp_path: Path, write: Any) -> None:
    path = colordim.open(write(tmp_path / "run", 3, 750)).report(tmp_path / "report.html")
    assert path.stat().st_size < 3 / 60 * 10e6  # 60 layers in 10 MB


def test_where_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = colordim.open(RUNS / "ended")
    assert run.report() == Path("ended-report.html")
    (tmp_path / "kept.html").write_text("before")
    assert run.report("kept.html", layers=0).read_text().startswith("<!doctype html>")
    run.report(tmp_path / "new" / "deep.html", layers=0)
    with pytest.raises(StoreError, match="new is a folder: name a file"):
        run.report("new")
    with pytest.raises(ArgumentError, match="columns=0"):
        run.report("other.html", columns=0)
    with pytest.raises(StreamError, match="no stream"):
        run.report("other.html", layers="nothing*")
    with pytest.raises(ArgumentError, match="kind='colour'"):
        run.report("other.html", kind="colour")  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ended-report.html", "kept.html", "new"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.html"
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", str(RUNS / "ended"), "-o", str(out), "--columns", "20", "--layer", "*"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"Wrote {out}, {out.stat().st_size / 1e6:.1f} MB\n"
