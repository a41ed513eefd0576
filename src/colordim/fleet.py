"""SQL over all runs of a folder: DuckDB reads their sealed files where they lie."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from colordim.column import Stream
from colordim.errors import ArgumentError, ColordimError, DependencyError, FormatError, NotARunError
from colordim.store import files
from colordim.store.description import find_runs, read_info
from colordim.store.place import LocalPlace
from colordim.store.segments import batches_in
from colordim.store.table import UNITS

__all__ = ["VIEWS", "Answer", "query"]

#: The views that a query can name, and where in the folder of a rank their files are.
VIEWS = {
    "batches": files.BATCHES,
    "columns": files.COLUMNS,
    "moments": files.MOMENTS_FOLDER,
    "units": files.UNITS_FOLDER,
}

_OF_RUN = [("run", pa.string()), ("rank", pa.int64())]
_STREAMS = pa.schema(
    [
        *_OF_RUN, ("id", pa.int32()), ("name", pa.string()), ("kind", pa.string()), ("module", pa.string()),
        ("arguments", pa.string()), ("shape", pa.list_(pa.int64())), ("axis", pa.string()), ("reduction", pa.string()),
        ("facet_of", pa.string()), ("facet", pa.string()),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """The result of a query.

    Attributes
    ----------
    columns : tuple of str
    rows : list of tuple
    notes : list of str
        A sentence for each thing that the query did not see.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    notes: list[str]


def query(folder: Path, sql: str) -> Answer:
    """Run SQL over the runs below a folder.

    The views are ``batches``, ``columns`` and ``moments`` (of level 0), ``units`` and ``streams``, each with the
    columns ``run``, the path of the run relative to `folder`, and ``rank``; ``docs/queries.md`` describes them.

    Parameters
    ----------
    folder : Path
    sql : str
        In the dialect of DuckDB.

    Returns
    -------
    Answer

    Raises
    ------
    DependencyError
        If DuckDB is not installed.
    NotARunError
        If no run below `folder` has a sealed segment.
    FormatError
        If a file is damaged.
    ValueError
        If the query fails.
    """
    try:
        import duckdb
    except ImportError:
        raise DependencyError(
            'a query needs DuckDB, which is not installed: pip install "colordim[query]".', page="queries#fleets"
        ) from None

    found = _find(folder)
    # A name that is no view must be an error, not a variable of ours.
    with duckdb.connect(config={"python_enable_replacements": "false"}) as connection:
        connection.register("streams", pa.Table.from_pylist(found.streams, schema=_STREAMS))
        for view, parts in found.parts.items():
            connection.register(view, _dataset(view, parts))
        try:
            connection.execute(sql)
            columns = tuple(str(column[0]) for column in connection.description or ())
            return Answer(columns, connection.fetchall() if columns else [], found.notes)
        except duckdb.Error as error:
            said = " ".join(str(error).partition("\nLINE ")[0].split()).rstrip(".!")
            views = ", ".join((*VIEWS, "streams"))
            raise ArgumentError(
                f"the query failed: {said}; there are the views {views}.", page="queries#fleets"
            ) from None


@dataclass(frozen=True)
class _Part:
    """A sealed file: whose it is, and the first batch of its segment."""

    path: Path
    run: str
    rank: int
    first: int


@dataclass
class _Found:
    parts: dict[str, list[_Part]] = field(default_factory=lambda: {view: [] for view in VIEWS})
    streams: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _find(folder: Path) -> _Found:
    found = _Found()
    runs = find_runs(folder)
    unsealed = dropped = 0
    for path in runs:
        name = path.relative_to(folder).as_posix() if path != folder else folder.resolve().name
        try:
            read_info(LocalPlace(path))  # refuses runs of a newer layout
            ranks = [(rank, each) for each in path.iterdir() if (rank := files.rank_number(each)) is not None]
            streams = [row for rank, each in ranks for row in _streams(name, rank, each / files.STREAMS)]
        except ColordimError as error:
            found.notes.append(f"{name} was left out: {error}")
            continue
        except (OSError, LookupError, TypeError, ValueError) as error:
            found.notes.append(f"{name} was left out, it cannot be read: {error!r}.")
            continue
        found.streams += streams
        unsealed += any(any(each.glob("tail-*")) for _, each in ranks)
        for rank, each in sorted(ranks):
            dropped += (each / files.DROPPED).exists()
            end = -1
            for first, last, batches in batches_in(LocalPlace(each).names(files.BATCHES)):  # they make a segment count
                if first <= end:  # the file before was made of it
                    continue
                end = last
                for view, below in VIEWS.items():
                    if (file := each / below / batches).exists():
                        found.parts[view].append(_Part(file, name, rank, first))
    if not found.parts["batches"]:
        raise NotARunError(
            f"none of the {len(runs)} runs in {folder} has a sealed segment: a recording seals when it ends, or after 64 MB.",
            page="queries#fleets",
        )
    if unsealed:
        found.notes.append(
            f"{unsealed} of {len(runs)} runs are live or were cut off: what they have not sealed yet is not in the answer."
        )
    if dropped:
        found.notes.append(
            f"{dropped} of {len(runs)} runs have dropped their oldest columns, to keep within max_bytes: their views columns and "
            "moments begin later."
        )
    return found


def _streams(run: str, rank: int, path: Path) -> Iterator[dict[str, Any]]:
    for stream in map(Stream.from_dict, json.loads(path.read_bytes())["streams"]):
        facet = stream.facet
        yield {
            **stream.to_dict(),
            "run": run,
            "rank": rank,
            "axis": str(stream.axis),
            "facet_of": facet and facet.of,
            "facet": facet and facet.label,
        }


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path.absolute()).remove_metadata()
    except (OSError, pa.ArrowException) as error:
        raise FormatError(
            f"{path} is damaged ({error}): move its run aside, or restore it from a copy.", page="queries#fleets"
        ) from None


def _dataset(view: str, parts: Sequence[_Part]) -> Any:
    """Return the files as one table that is read when it is asked for; `run`, `rank` and, of batches, `first` are theirs."""
    of_file = pa.schema([*_OF_RUN, *([("first", pa.int64())] if view == "batches" else [])])
    if view == "units":
        schema = UNITS
    else:  # what was logged may differ from segment to segment
        read = parts if view == "batches" else parts[:1]
        schema = pa.unify_schemas([_schema(part.path) for part in read])
    conditions = []
    for part in parts:
        condition = (pc.field("run") == part.run) & (pc.field("rank") == part.rank)
        conditions.append(condition & (pc.field("first") == part.first) if "first" in of_file.names else condition)
    return ds.FileSystemDataset.from_paths(
        [str(part.path) for part in parts],
        schema=pa.schema([*of_file, *schema]),
        format=ds.ParquetFileFormat(
            default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        ),
        filesystem=LocalFileSystem(),
        partitions=conditions,
    )
