"""Trains what a part of the benchmark lacks in its cache: `python -m benchmarks.diagnosis.run --part dev`.

Each training goes into `CACHE/<id>/`: `run` is colordim's folder, `truth.json` all three labels' raw material, `verdicts.json` what
rival rule sets said. A training is complete once its truth is there; it is made in a folder of another name before, so that an
interruption leaves nothing half done behind.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

from benchmarks.diagnosis.outcome import write_references
from benchmarks.diagnosis.spec import Spec
from benchmarks.diagnosis.split import PARTS, part
from benchmarks.diagnosis.train import TRUTH, VERDICTS, read_truth, train

__all__ = ["CACHE", "cached", "fill", "main"]

CACHE = Path(".cache") / "diagnosis"


def cached(specs: list[Spec], cache: Path) -> Iterator[tuple[Spec, Path]]:
    """Yield the trainings whose record is in the cache, with their folders."""
    yield from ((spec, cache / spec.id) for spec in specs if (cache / spec.id / TRUTH).exists())


def fill(specs: list[Spec], cache: Path, jobs: int = 2, rivals: bool = False, record: bool = True) -> list[str]:
    """Train what is missing, in processes of their own.

    Returns
    -------
    list of str
        What went wrong, a line for each training that raised; the others are not affected.
    """
    cache.mkdir(parents=True, exist_ok=True)
    missing = [spec for spec in specs if not _complete(cache / spec.id, rivals)]
    # Mixed: what an interruption leaves is a sample of all of it. With rivals from the other end: two may fill one cache.
    missing.sort(key=lambda spec: spec.id[-6:], reverse=rivals)
    failed, begun = [], time.monotonic()
    # A fresh process per training would import torch each time; forked ones would share its threads.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(_one, spec, cache, rivals, record): spec for spec in missing}
        try:
            for done, future in enumerate(as_completed(waiting), 1):
                if (error := future.result()) is not None:
                    failed.append(f"{waiting[future].id}: {error}")
                    print(f"\n{failed[-1]}", flush=True)
                left = (time.monotonic() - begun) / done * (len(missing) - done)
                print(f"\r{done}/{len(missing)} trained, about {left / 60:.0f} min left  ", end="", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    print(f"\n{len(specs) - len(failed)} of {len(specs)} in {cache}")
    return failed


def _complete(folder: Path, rivals: bool) -> bool:
    return (folder / TRUTH).exists() and (not rivals or (folder / VERDICTS).exists())


def _one(spec: Spec, cache: Path, rivals: bool, record: bool) -> str | None:
    if _complete(cache / spec.id, rivals):  # by another process, meanwhile
        return None
    warnings.simplefilter("ignore")  # of torch, about what was planted
    monitors = []
    if rivals:
        monitors = import_module("benchmarks.diagnosis.rivals").monitors()  # their packages are needed for nothing else
    partial = cache / f".{spec.id}.{os.getpid()}"
    try:
        partial.mkdir()
        train(spec, partial, monitors, record=record)
        shutil.rmtree(cache / spec.id, ignore_errors=True)
        partial.rename(cache / spec.id)
    except Exception:
        return traceback.format_exc(limit=-2).strip().replace("\n", " | ")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return None


def main() -> None:
    """Train a part of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--with-rivals", action="store_true", help="let the rival rule sets watch")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # otherwise the workers would outlive this process
    specs = part(given.part)
    references = given.part == "reference"  # of which only the scores are wanted
    cache = given.cache / "reference" if references else given.cache
    failed = fill(specs, cache, given.jobs, given.with_rivals, record=not references)
    if references and not failed:
        write_references(read_truth(folder) for _, folder in cached(specs, cache))
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
