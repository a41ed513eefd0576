"""Which trainings are for development, and which are held out: fixed before any threshold was tuned.

The held-out part has other seeds, two architectures and four fault families that are in no other part.
"""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

from benchmarks.diagnosis.faults import FAMILIES, HELD_OUT_FAMILIES, faulty, out_of_scope
from benchmarks.diagnosis.spec import Spec
from benchmarks.diagnosis.variants import healthy
from benchmarks.diagnosis.zoo import ARCHITECTURES, HELD_OUT

__all__ = ["PARTS", "part"]

DEVELOPED = tuple(name for name in ARCHITECTURES if name not in HELD_OUT)
DEVELOPED_FAMILIES = tuple(name for name in FAMILIES if name not in HELD_OUT_FAMILIES)
DEV_SEED, HELD_OUT_SEEDS, REFERENCE_SEEDS = 0, (101, 102), (1001, 1002, 1003, 1004, 1005)
SLOW = ("mlp8", "cnn", "cnn_bn", "resmlp_ln", "transformer")  # of their cases, about half are for development
RARE = ("bn-statistics", "bn-pair", "collapse", "exploding-stack")  # of one or two architectures: in both parts
SCOPE_ARCHS = ("mlp3", "cnn", "gru", "transformer")
PARTS = ("dev", "heldout", "smoke", "reference")


def part(name: str) -> list[Spec]:
    """Return the trainings of a part, in an order that is the same each time.

    Raises
    ------
    ValueError
        There is no such part.
    """
    if name not in PARTS:
        raise ValueError(f"there is no part {name!r}: the parts are {', '.join(PARTS)}")
    specs = list({"dev": _dev, "heldout": _held_out, "smoke": _smoke, "reference": _reference}[name]())
    assert len({each.id for each in specs}) == len(specs)
    return specs


def _developed(spec: Spec) -> bool:
    """Whether a case is for development; of slow architectures the other faults are held out, so that each is in one part."""
    if spec.arch not in SLOW or spec.family == "base" or spec.family in RARE:
        return spec.family not in HELD_OUT_FAMILIES
    return (
        spec.family not in HELD_OUT_FAMILIES and crc32(f"{spec.arch} {spec.family} {spec.strength}".encode()) % 2 == 0
    )


def _held(spec: Spec) -> bool:
    return spec.arch not in SLOW or spec.family in RARE or not _developed(spec)


def _dev() -> Iterator[Spec]:
    for arch in DEVELOPED:
        yield from (each for each in healthy(arch, DEV_SEED) if _developed(each))
        yield from (each for each in faulty(arch, DEV_SEED, DEVELOPED_FAMILIES) if _developed(each))
    for arch in SCOPE_ARCHS:
        yield from out_of_scope(arch, DEV_SEED)


def _held_out() -> Iterator[Spec]:
    first, second = HELD_OUT_SEEDS
    for arch in ARCHITECTURES:
        yield from healthy(arch, first)
        yield from (each for each in faulty(arch, first, tuple(FAMILIES)) if _held(each))
        yield from (each for place, each in enumerate(healthy(arch, second)) if place % 3 == 0)
    for arch in (*SCOPE_ARCHS, *HELD_OUT):
        for seed in HELD_OUT_SEEDS:
            yield from out_of_scope(arch, seed)


def _reference() -> Iterator[Spec]:
    for arch in ARCHITECTURES:
        for seed in REFERENCE_SEEDS:
            yield next(healthy(arch, seed))  # the base comes first


SMOKE_HEALTHY = (("mlp3", "base"), ("mlp3", "sgd"), ("mlp3", "one-cycle"), ("mlp3", "sparse"), ("tanh5", "base"), ("wine", "long"),
                 ("wine", "dropout"), ("regression", "base"), ("cnn_bn", "base"), ("gru", "frozen-first"), ("cnn", "base"))  # fmt: skip
SMOKE_FAULTS = (("mlp3", "dead-layer"), ("mlp3", "high-lr"), ("mlp3", "low-lr"), ("mlp3", "nan-log"), ("mlp3", "no-zero-grad"),
                ("mlp3", "left-out"), ("mlp3", "detach"), ("tanh5", "saturated-tanh"), ("mlp3", "valid-scaled"), ("cnn", "collapse"),
                ("mlp3", "large-output"), ("mlp8", "deep-sigmoid"))  # fmt: skip


def _smoke() -> Iterator[Spec]:
    for arch, family in SMOKE_HEALTHY:
        yield from (each for each in healthy(arch, DEV_SEED) if each.family == family)
    for arch, family in SMOKE_FAULTS:
        yield list(faulty(arch, DEV_SEED, (family,)))[-1]
    yield next(out_of_scope("mlp3", DEV_SEED))
