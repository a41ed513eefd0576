"""Training and validation that see different things: the twin peaks, for every layer."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from colordim.diagnosis import layers
from colordim.diagnosis.course import course_of
from colordim.diagnosis.evidence import Evidence, Passes
from colordim.diagnosis.finding import Finding, Number
from colordim.diagnosis.remedies import remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE", "coarse", "divergence"]

#: Jensen-Shannon divergence in bits over 16 bins that hold equally many values: from 0 (alike) to 1 (nothing in common).
_APART, _BINS = 0.004, 16
#: How many times that of two epochs' trainings, which differ by their samples and by what was learnt; and the least of that.
_TIMES, _NOISE = 8.0, 0.0005
#: Before there are two epochs to compare.
_AT_ONCE = 0.05
#: Share of zeros that evaluation mode has to take away for it to be told from chance.
_DROPS = 0.03
#: Validation loss relative to that of training.
_WORSE = 1.5
_WHY = (
    "The histograms of this layer at the end of an epoch's training and in its validation should be nearly the same, and they are not: "
    "the network is shown something else in validation, or computes something else. What validation measures is not what was trained."
)


def divergence(first: npt.ArrayLike, second: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the Jensen-Shannon divergence of histograms in bits (Lin 1991), shape ``[...]`` of counts ``[..., m]``.

    NaN where one of the two is empty.
    """
    p, q = (np.asarray(each, np.float64) for each in (first, second))
    with np.errstate(divide="ignore", invalid="ignore"):
        p, q = p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True)
        middle = (p + q) / 2
        terms = np.where(p > 0, p * np.log2(p / middle), 0.0) + np.where(q > 0, q * np.log2(q / middle), 0.0)
    result = terms.sum(axis=-1) / 2
    return np.asarray(np.where(np.isnan(p).any(axis=-1) | np.isnan(q).any(axis=-1), np.nan, result), np.float64)


def coarse(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], bins: int = _BINS
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return two histograms over fewer bins, that hold about equally many values of both together.

    Of few samples fine bins differ by chance.
    """
    total = np.cumsum(first + second)
    if not total.size or not total[-1]:
        return np.zeros(bins), np.zeros(bins)
    place = np.minimum((total - (first + second) / 2) / total[-1] * bins, bins - 1).astype(np.int64)
    sides = (np.asarray(np.bincount(place, each, bins), np.float64) for each in (first, second))
    return next(sides), next(sides)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find the first layer whose validation parts from its training, while the validation loss is much worse."""
    known = [
        each
        for each in evidence.of("activation")
        if each.name in evidence.passes and len(evidence.passes[each.name].epoch)
    ]
    if not known:
        raise TooThin(
            "no validation pass was recorded: passes without gradients count in evaluation mode alone, after model.eval()."
        )
    dropping = _dropping(evidence)
    if dropping is not None:
        return [dropping]
    course = course_of(evidence)
    losses = evidence.valid_loss[1]
    if not course.known or not losses.size or not np.isfinite(losses[-1]):
        raise TooThin("the validation loss was not logged: rec.log(loss=loss) in validation too.")
    worse = float(losses[-1] / max(course.now, 1e-12))
    # From the first dropout on training and validation differ in good health.
    dropout = next((place for place, each in enumerate(known) if "Dropout" in each.stream.module), len(known))
    early = known[: min(dropout, max((len(known) + 1) // 2, 1))]
    parted = [(series, found) for series in early if (found := _parts(evidence.passes[series.name])) is not None]
    if not parted or not worse > _WORSE:
        return []
    first, (end, apart, limit) = parted[0]
    normed = layers.is_norm(first)  # and what comes into it has not parted
    return [
        Finding(
            "train-valid-mismatch",
            "problem",
            f"training and validation part at {first.name}",
            tuple(series.name for series, _ in parted),
            max(end - 1, 0),
            evidence.length - 1,
            (
                Number(f"divergence of {first.name} between training and validation", apart, limit, "above", "bits"),
                Number("validation loss relative to that of training", worse, _WORSE, "above", "times"),
            ),
            _WHY,
            tuple(
                remedy(key)
                for key in (("eval-mode", "same-preprocessing") if normed else ("same-preprocessing", "eval-mode"))
            ),
        )
    ]


def _parts(passes: Passes) -> tuple[int, float, float] | None:
    """Return since which batch training and validation differ, how much in the end, and what is allowed; None if they do not."""
    apart = np.array([divergence(*coarse(*pair)) for pair in zip(passes.train, passes.valid, strict=True)])
    noise = np.array([divergence(*coarse(*pair)) for pair in itertools.pairwise(passes.train)])
    limit = max(_APART, _TIMES * max(float(np.nanmedian(noise)), _NOISE)) if noise.size else _AT_ONCE
    over = np.flatnonzero(apart > limit)
    return (int(passes.end[over[0]]), float(apart[-1]), limit) if over.size and apart[-1] > limit else None


def _dropping(evidence: Evidence) -> Finding | None:
    """Find dropout that is still active in validation.

    Of what comes in with a share z of zeros, dropout with probability p returns z + p (1 - z) in training and z in
    evaluation mode, whatever z is. If validation drops as well, both are the same.
    """
    for series in evidence.of("activation"):
        passes = evidence.passes.get(series.name)
        share = re.search(r"\bp=([0-9.]+)", series.stream.arguments)
        if passes is None or "Dropout" not in series.stream.module or share is None or not len(passes.epoch):
            continue
        drops = float(share.group(1))
        train, valid = (
            float(zeros[-1] / size[-1])
            for zeros, size in ((passes.train_zeros, passes.train_size), (passes.valid_zeros, passes.valid_size))
        )
        missing = drops * (1.0 - valid)
        if missing < _DROPS or valid < 0.9 * drops or train - valid > missing / 2:
            continue
        return Finding(
            "train-valid-mismatch",
            "problem",
            f"{series.name} still drops values in validation",
            (series.name,),
            int(max(passes.end[0] - 1, 0)),
            evidence.length - 1,
            (
                Number("zeros that training has beyond validation", train - valid, missing / 2, "below", "%"),
                Number("probability of dropping", drops, None, "", "%"),
            ),
            "Dropout is meant for training alone; in evaluation mode it passes everything. "
            "As it is, validation measures a network with parts of it switched off.",
            (remedy("eval-mode"),),
        )
    return None


RULE = Rule("train-valid-mismatch", "Training and validation differ", find)
