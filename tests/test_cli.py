from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from colordim.axis import LinearAxis
from colordim.cli import UsageError, app, main, parse_window
from colordim.column import Batch, Stream
from colordim.store.writer import FolderWriter

AXIS = LinearAxis(-2, 2, 4)


def write_run(path: Path, name: str, train: int = 6, ended: str | None = "stopped") -> Path:
    """Write two layers of eight values a batch, over two epochs of training and one validation batch each."""
    writer = FolderWriter(path, {"name": name, "created": "2026-01-02T03:04:05+00:00"})
    streams = [Stream(i, n, "activation", "ReLU", "", (2, 4), i, AXIS) for i, n in enumerate(("first", "second"))]
    for stream in streams:
        writer.declare(stream)
    batch = 0
    for epoch in range(2):
        phases = ["train"] * (train // 2) + ["valid"]
        for i, phase in enumerate(phases):
            index = epoch * (train // 2) + i if phase == "train" else epoch
            rows = np.array([0, 1, 4, 2, 0, 1, 0, 0, 0, 3, 8, 1] * 2, np.int64)
            moments = np.array([[1.0, 4.0, -1.0, 3.0]] * 2)
            values = {"loss": 2.0 - 0.25 * batch}
            writer.append(Batch(batch, index, phase, epoch, batch, 0.0, True, values), streams, rows, moments)  # type: ignore[arg-type]
            batch += 1
    writer.flush()
    if ended is not None:
        writer.close(ended)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "lenet", "lenet")


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "120", "NO_COLOR": "1"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    assert caught.value.code == 1
    output = capsys.readouterr()
    assert output.out == ""
    sentence, *more = output.err.splitlines()
    assert [line.startswith("More: colordim docs ") for line in more] in ([], [True])
    return sentence


def test_ls_tells_what_each_run_is(run: Path) -> None:
    write_run(run.parent / "old" / "resnet", "resnet", train=4, ended="KeyboardInterrupt")
    heading, first, second = invoke("ls", run.parent).splitlines()
    assert heading.split() == ["run", "state", "train", "valid", "epochs", "streams", "last", "loss", "created", "size"]
    # 8 batches, the last of the training (the seventh) with loss 2 - 6 / 4
    assert first.split()[:7] == ["lenet", "ended", "6", "2", "2", "2", "0.5"]
    assert first.split()[7].startswith("2026-01-0")
    assert first.split()[-1] in ("B", "kB")
    assert second.split()[:8] == ["old/resnet", "ended:", "KeyboardInterrupt", "4", "2", "2", "2", "1"]


def test_ls_tells_a_live_run_from_one_that_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "a", "a", ended=None)
    assert invoke("ls", tmp_path).splitlines()[1].split()[1] == "live"
    monkeypatch.setattr("colordim.listing.QUIET_SECONDS", 0)
    assert invoke("ls", tmp_path).splitlines()[1].split()[1:3] == ["cut", "off"]


def test_ls_goes_on_past_a_run_that_cannot_be_read(run: Path) -> None:
    other = write_run(run.parent / "broken", "broken")
    (other / "run.json").write_text('{"schema": 999}')
    output = invoke("ls", run.parent)
    assert "broken  unreadable" in " ".join(output.split()).replace("broken unreadable", "broken  unreadable")
    assert "lenet" in output


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_show_writes_the_format_of_the_suffix(run: Path, tmp_path: Path, suffix: str, magic: bytes) -> None:
    out = tmp_path / "new" / f"picture{suffix}"
    assert invoke("show", run, "--out", out).strip() == f"Wrote {out}"
    assert out.read_bytes().startswith(magic)


@pytest.mark.parametrize("chart", ["colorful", "twin_peaks", "dead", "profile"])
def test_show_draws_every_chart_under_a_name_of_its_own(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chart: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("show", run, "--chart", chart, "--layer", "second") == f"Wrote lenet-{chart}.png\n"
    assert (tmp_path / f"lenet-{chart}.png").stat().st_size > 1000


def test_show_takes_every_option_of_the_colorful_chart(run: Path, tmp_path: Path) -> None:
    options = ["--phase", "valid", "--window=-1,1", "--color", "count", "--mean", "--profiles", "--focus", "1"]
    invoke("show", run, "--out", tmp_path / "a.png", *options)


def test_show_draws_scalars_and_what_is_not_there_is_a_sentence(run: Path, tmp_path: Path) -> None:
    for options in (["--chart", "scalars"], ["--chart", "updates"]):
        assert "Wrote" in invoke("show", run, "--out", tmp_path / "a.png", *options)


def test_show_writes_no_picture_of_a_kind_that_was_not_recorded(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "a.png"
    said = failure(capsys, "show", run, "--out", picture, "--kind", "gradient")
    assert "no streams of the kind gradient, but of activation" in said
    assert not picture.exists()


def test_show_passes_on_what_applies(run: Path, tmp_path: Path) -> None:
    invoke("show", run, "--out", tmp_path / "a.png", "--chart", "dead", "--phase", "valid", "--kind", "activation")
    invoke("show", run, "--out", tmp_path / "a.png", "--chart", "twin_peaks", "--window=-1,1", "--layer", "first")


def test_show_in_the_terminal(run: Path) -> None:
    lines = invoke("show", run, "--terminal", "--layer", "second", "--window=-2,2", "--height", "12").splitlines()
    assert lines[0].rstrip() == "second  ReLU [2, 4]"
    # The bins hold 0, 1, 4 and 2 of 8 values, the lowest first, one is above. Seven rows, each 4 / 7 high, have
    # (from the top) 8/7, 10/7, 16/7, 10/7, 4/7, 1/7 and 0 of them; nine shades divide the decade below 16/7:
    # 9 * (1 + log10(ratio)) is 6.3, 7.2, 9, 7.2, 3.6, less than 0 (so 0); for the strip's 1 it is 5.8.
    assert lines[1].split()[:2] == ["^12", "%"]
    assert [line[10:-2].strip()[:1] for line in lines[1:10]] == ["*", "#", "%", "@", "%", "=", ".", "", ""]
    assert (lines[-3].split()[0], lines[-1].split()[0]) == ("share", "count")
    assert max(map(len, lines)) <= 120


def test_several_layers_make_a_wall_under_one_bar(run: Path) -> None:
    lines = invoke("show", run, "--terminal", "--width", "100").splitlines()
    assert lines[0].index("first") == 0
    assert lines[0].index("second") > 45
    assert sum(line.split()[:1] == ["share"] for line in lines) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "RUN", "--out", "x.gif"], ["x.gif", ".png, .svg, .pdf"]),
        (["show", "RUN", "--layer", "third"], ["third", "first"]),
        (["show", "RUN", "--window", "wide"], ["wide", "shared, own, symlog"]),
        (["show", "RUN", "--window=3,1"], ["3", "1"]),
        (["show", "RUN", "--terminal", "--chart", "dead"], ["--terminal"]),
        (["show", "RUN", "--terminal", "--mean", "--focus", "2"], ["--mean and --focus", "leave them out"]),
        (["show", "RUN", "--chart", "dead", "--window", "own"], ["--window", "--chart dead", "leave it out"]),
        (["show", "RUN", "--chart", "twin_peaks", "--phase", "train"], ["--phase", "--chart twin_peaks"]),
        (["show", "RUN", "--chart", "profile", "--mean", "--color", "count"], ["--color and --mean"]),
        (["show", "RUN", "--chart", "scalars", "--layer", "first"], ["--layer", "--chart scalars"]),
        (["show", "RUN", "--width", "80"], ["--width", "--chart colorful"]),
        (["show", "RUN", "--by", "class", "--layer", "first"], ["no classes of 'first'", "facets"]),
        (["show", "RUN", "--terminal", "--kind", "gradient"], ["no streams of the kind gradient"]),
        (["show", "nowhere"], ["nowhere"]),
        (["show", "RUN", "--phase", "test"], ["test"]),
        (["shew"], ["shew", "show"]),
        (["ls", "nowhere"], ["nowhere"]),
        (["ls", "EMPTY"], ["no runs"]),
    ],
)
def test_an_error_is_one_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "empty").mkdir()
    message = failure(
        capsys, *(a.replace("RUN", str(run)).replace("EMPTY", str(tmp_path / "empty")) for a in arguments)
    )
    assert message.startswith("colordim: ")
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [("shared", "shared"), ("symlog", "symlog"), ("-3,4.5", (-3.0, 4.5)), ("0, 1e2", (0.0, 100.0))],
)
def test_windows_are_parsed(text: str, expected: object) -> None:
    assert parse_window(text) == expected


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "a,b"])
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no window"):
        parse_window(text)


def test_version() -> None:
    import colordim

    assert invoke("--version") == f"colordim {colordim.__version__}\n"


def test_viewing_imports_no_torch_and_help_no_charts(run: Path) -> None:
    code = (
        "import sys\nfrom colordim.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as e:\n    assert e.code == 0, e.code\n"
        "print([m for m in ('torch', 'matplotlib', 'mlxtend') if m in sys.modules])"
    )

    def imported(*arguments: str) -> str:
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[-1]

    assert imported("--help") == "[]"
    assert imported("show", str(run), "--terminal") == "['matplotlib']"


def test_without_torch_the_demo_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert 'pip install "colordim[demo]"' in failure(capsys, "demo")


def test_tiny_gradients_fill_the_terminal_with_labels_of_their_own(tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path / "run", {"name": "tiny"})
    axis = LinearAxis(-4e-6, 4e-6, 8)
    stream = Stream(0, "fc", "gradient", "Linear", "", (2, 4), 0, axis)
    writer.declare(stream)
    row = np.array([0, 1, 1, 2, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 8, 1], np.int64)
    for i in range(4):
        writer.append(Batch(i, i, "train", 0, i, 0.0), [stream], row, np.array([[0.0, 1e-11, -2.5e-6, 2.5e-6]]))
    writer.close("stopped")
    for window in ([], ["--window", "symlog"]):
        lines = invoke("show", tmp_path / "run", "--terminal", "--kind", "gradient", *window).splitlines()
        assert lines[0].startswith("fc gradient  Linear")
        labels = [line.split()[0] for line in lines if "+" in line[:10] and line[:8].strip()]
        assert "0" in labels
        assert any("e-06" in label for label in labels)
        drawn = [line for line in lines if set(line[10:]) & set("#%@")]
        assert len(drawn) > 5


def test_it_runs_as_a_module_as_well() -> None:
    shown = subprocess.run([sys.executable, "-m", "colordim", "--help"], capture_output=True, text=True, check=True)
    assert "show" in shown.stdout


@pytest.mark.parametrize("columns", [40, 60, 80, 100])
def test_ls_never_cuts_a_name(run: Path, columns: int) -> None:
    name = "a-study-of-learning-rates/resnet50-warmup-cosine"
    write_run(run.parent / name, "resnet")
    result = CliRunner().invoke(app, ["ls", str(run.parent)], env={"COLUMNS": str(columns), "NO_COLOR": "1"})
    lines = result.output.splitlines()
    assert max(map(len, lines)) <= columns
    assert "…" not in result.output
    whole = "".join(line.split("  ")[0].strip() for line in lines[1:])  # where a name is folded, the next line goes on
    assert name in whole
    assert any(line.startswith(name) for line in lines) == (columns >= 80)
    assert "no room for streams, valid" in " ".join(result.output.split())


def test_ls_leaves_nothing_out_where_there_is_no_terminal(run: Path) -> None:
    name = "x" * 90
    write_run(run.parent / name, "x")
    result = CliRunner().invoke(app, ["ls", str(run.parent)], env={"COLUMNS": None})
    heading, *rows = result.output.splitlines()
    assert heading.split()[-1] == "size"
    assert [row.split()[0] for row in rows] == ["lenet", name]


def test_names_of_runs_are_no_markup(run: Path) -> None:
    write_run(run.parent / "[red]", "x")
    assert "[red]" in invoke("ls", run.parent)
