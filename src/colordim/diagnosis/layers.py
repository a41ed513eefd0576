"""Which layers do what: what the rules need to know of a model, from its facts and the order of its calls."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from colordim.diagnosis.evidence import Evidence, Series

__all__ = [
    "NORMS",
    "call_order",
    "classes",
    "followers",
    "is_norm",
    "matrices",
    "output",
    "parameters",
    "weighted",
]

#: Classes of normalisations.
NORMS = re.compile(r"(Batch|Layer|Group|Instance|RMS|LocalResponse|SyncBatch).*Norm", re.IGNORECASE)
_LOOKUPS = ("Embedding", "EmbeddingBag")


def is_norm(series: Series) -> bool:
    """Return whether a layer is a normalisation, by the name of its class."""
    return NORMS.search(series.stream.module) is not None


def call_order(evidence: Evidence) -> Mapping[str, int]:
    """Return the place of each layer in the order of the calls; of several outputs of one, that of the last."""
    return {series.name.split("[")[0]: place for place, series in enumerate(evidence.of("activation"))}


def parameters(evidence: Evidence) -> tuple[Mapping[str, Any], ...]:
    """Return the rows of the facts' named parameters."""
    return tuple(evidence.facts.get("named_parameters", ()))


def matrices(evidence: Evidence) -> tuple[Mapping[str, Any], ...]:
    """Return those of at least two dimensions that are no lookup table."""
    owners = {row["path"]: row["class"] for row in evidence.facts.get("named_modules", ())}
    return tuple(
        row
        for row in parameters(evidence)
        if row.get("shape") is not None and len(row["shape"]) > 1 and owners.get(row["module"], "") not in _LOOKUPS
    )


def weighted(evidence: Evidence) -> tuple[Series, ...]:
    """Return the outputs of the layers that own a matrix, in call order."""
    owners = {row["module"] for row in matrices(evidence)}
    return tuple(series for series in evidence.of("activation") if series.name.split("[")[0] in owners)


def output(evidence: Evidence) -> Series | None:
    """Return the output of the model: of its last layer that owns a matrix; None if there is no such layer."""
    found = weighted(evidence)
    return found[-1] if found else None


def classes(evidence: Evidence) -> int:
    """Return how many classes the output seems to have: the size of its last dimension; 0 if that is below two."""
    last = output(evidence)
    width = last.stream.shape[-1] if last is not None and len(last.stream.shape) > 1 else 0
    return int(width) if width > 1 else 0


def followers(evidence: Evidence) -> Mapping[str, Mapping[str, Any]]:
    """Return the activation function that follows each layer, as far as it is known."""
    found = evidence.facts.get("followers")
    return {layer: each for layer, each in (found or {}).items() if isinstance(each, Mapping) and "name" in each}
