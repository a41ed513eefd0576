"""A run as pandas data frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colordim import statistics
from colordim.column import Phase
from colordim.errors import ArgumentError, DependencyError
from colordim.run import Run, StreamKey

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["to_pandas"]


def to_pandas(
    run: Run,
    stream: StreamKey | None = None,
    phase: Phase | None = None,
    start: int | None = None,
    stop: int | None = None,
) -> pd.DataFrame:
    """Return the table of batches, or the moments of a stream, as a ``pandas.DataFrame``.

    ``run.to_pandas("0").join(run.to_pandas(phase="train").set_index("index"))`` puts what was logged beside them.

    Parameters
    ----------
    stream : Stream, str or int, optional
        Without it, the batches are returned.
    phase : {"train", "valid"}, optional
        Of a stream ``"train"`` by default; of the batches both.
    start, stop : int, optional
        Of a stream: batches ``start <= index < stop`` of the phase, as in a slice.

    Returns
    -------
    pandas.DataFrame
        Of the batches: :attr:`colordim.run.Run.batches`, indexed by ``batch``. Of a stream: a row for each recorded
        batch, indexed by ``index``, its number within the phase, with ``size, calls, zeros, under, over, nan, pos_inf,
        neg_inf`` and, over the finite values, ``mean, std, min, max, sum, sum_sq``; NaN where there are none.

    Raises
    ------
    StreamError
        If there is no such stream.
    ValueError
        If there is no such phase, or `start` or `stop` is given without a stream.
    DependencyError
        If pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise DependencyError(
            'to_pandas needs pandas, which is not installed: pip install "colordim[pandas]".',
            page="run#as-tables-and-histograms",
        ) from None

    if stream is None:
        if start is not None or stop is not None:
            raise ArgumentError(
                "start and stop are of a stream's batches: name one, or slice the frame.",
                page="run#as-tables-and-histograms",
            )
        batches = pd.DataFrame(dict(run.batches)).set_index("batch")
        if phase is not None:
            run.length(phase)  # raises if there is no such phase
            batches = batches[batches["phase"] == phase]
        return batches
    table = run.moments(stream, phase or "train", start, stop)
    number = statistics.finite(*(table[name] for name in ("size", "nan", "pos_inf", "neg_inf")))
    table["mean"] = statistics.mean(table["sum"], number)
    table["std"] = statistics.std(table["sum"], table["sum_sq"], number)
    frame = pd.DataFrame(table, index=pd.Index(table["first"], name="index"))
    frame.loc[number == 0, ["min", "max"]] = float("nan")
    return frame[list(_NAMES)]


_NAMES = (
    "size", "calls", "zeros", "under", "over", "nan", "pos_inf", "neg_inf",
    "mean", "std", "min", "max", "sum", "sum_sq",
)  # fmt: skip
