"""The tables hold what NumPy finds in the values."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import colordim
from colordim.errors import ArgumentError
from colordim.publish.csv import Csv
from colordim.publish.publisher import Publisher, export
from colordim.store import files


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def check(row: dict[str, str], values: Any) -> None:
    finite = values[np.isfinite(values)]
    numbers = [float(row[name]) for name in ("mean", "std", "min", "max")]
    np.testing.assert_allclose(numbers, [finite.mean(), finite.std(), finite.min(), finite.max()], rtol=1e-12)
    expected = {
        "size": values.size, "zeros": np.sum(values == 0), "nan": np.sum(np.isnan(values)),
        "pos_inf": np.sum(values == np.inf), "neg_inf": np.sum(values == -np.inf),
    }  # fmt: skip
    assert {name: int(row[name]) for name in expected} == expected
    assert float(row["zeros_share"]) == expected["zeros"] / values.size


def test_a_row_for_each_layer_and_epoch(run: colordim.Run, known: Any, tmp_path: Path) -> None:
    assert export(run, f"csv:{tmp_path / 'out'}") == 3
    rows = read(tmp_path / "out" / "epochs.csv")
    assert len(rows) == 5 + 5 + 3
    for row in rows:
        check(row, known.of(row["layer"], row["phase"], int(row["first_batch"]), int(row["last_batch"])))
        assert int(row["batches"]) == int(row["last_batch"]) - int(row["first_batch"]) + 1
    assert [row["epoch"] for row in rows] == ["0"] * 5 + ["1"] * 5 + ["2"] * 3
    (weights,) = (row for row in rows if row["kind"] == "weight" and row["epoch"] == "1")
    assert (weights["near_zero_share"], weights["dead_share"]) == ("", "")
    assert [row["dead_share"] for row in rows if row["dead_share"]] == ["0.25"]
    assert not (tmp_path / "out" / "batches.csv").exists()


def test_a_row_for_each_batch_on_request(run: colordim.Run, known: Any, tmp_path: Path) -> None:
    export(run, Csv(tmp_path, every_batch=True))
    rows = read(tmp_path / "batches.csv")
    assert len(rows) == 12 * 3 + 4 * 2
    for row in rows:
        assert row["first_batch"] == row["last_batch"]
        check(row, known.of(row["layer"], row["phase"], int(row["first_batch"]), int(row["first_batch"])))


def test_a_table_is_written_anew_from_the_epoch_that_comes_again(run: colordim.Run, tmp_path: Path) -> None:
    export(run, f"csv:{tmp_path}")
    before = read(tmp_path / "epochs.csv")
    export(run, f"csv:{tmp_path}")
    assert read(tmp_path / "epochs.csv") == before
    Publisher([Csv(tmp_path)], since=10).update(run)  # a training that was resumed in epoch 1
    assert read(tmp_path / "epochs.csv") == before


def test_the_table_of_another_run_is_left_alone(run: colordim.Run, folder: Path, tmp_path: Path) -> None:
    export(run, f"csv:{tmp_path / 'out'}")
    before = (tmp_path / "out" / "epochs.csv").read_text()
    assert {row["run"] for row in read(tmp_path / "out" / "epochs.csv")} == {run.name}
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    info = files.from_json((other / "run.json").read_bytes())
    (other / "run.json").write_bytes(files.to_json({**info, "name": "another"}).encode())
    with pytest.raises(ArgumentError, match=f"epochs.csv holds the epochs of another run, '{run.name}'"):
        export(colordim.open(other), f"csv:{tmp_path / 'out'}")
    assert (tmp_path / "out" / "epochs.csv").read_text() == before


def test_without_a_folder_the_table_is_beside_the_run(run: colordim.Run, folder: Path) -> None:
    export(run, "csv")
    assert (folder / "csv" / "epochs.csv").exists()
    assert colordim.open(folder).length() == 12


def test_a_run_that_is_nowhere_needs_a_folder() -> None:
    from colordim.axis import LinearAxis
    from colordim.column import Batch, Stream
    from colordim.store.memory import MemoryStore

    store = MemoryStore()
    with pytest.raises(ArgumentError, match="holds nothing"):
        export(colordim.Run(store), "csv")
    stream = Stream(0, "a", "activation", "", "", (), 0, LinearAxis(0, 1, 1))
    store.declare(stream)
    store.append(Batch(0, 0, "train", 0, 0, 0.0), [stream], np.array([1, 0, 0, 0, 0, 0, 0, 1, 1]), np.ones((1, 4)))
    with pytest.raises(ArgumentError, match="name one, as csv:some/folder"):
        export(colordim.Run(store), "csv")
