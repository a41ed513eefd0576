"""Values outside of the values on show: where they are, and that none is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.training import fit, one_cycle, sgd
from colordim.demo.network import healthy_network

LAYERS = ("conv1", "head")
NARROW, WIDE = 1.0, 10.0


def make(folder: Path) -> Shown:
    """Train once, on the default axis, which has every magnitude."""
    run = fit(healthy_network, folder / "range", optimizer=sgd(0.6), epochs=3, schedule=one_cycle(0.6))
    size = {"colorbar": "shared", "figsize": (8.6, 3.2)}
    narrow = run.colorful(LAYERS, window=(-NARROW, NARROW), title="The same run, window (-1, 1)", **size)  # type: ignore[arg-type]
    whole = run.colorful(LAYERS, window="symlog", title='The same run, window="symlog"', **size)  # type: ignore[arg-type]
    first, head = panels(narrow)
    mark(first, 1, (20, 1.03 * NARROW), (0, -30))
    mark(head, 2, (62, -1.03 * NARROW), (-28, 24))
    first, head = panels(whole)
    mark(head, 3, (75, 9.0), (0, -44))
    counts, moments = run.counts("head"), run.moments("head")
    edges = run.stream("head").axis.edges
    outside = counts[:, (edges[:-1] >= NARROW) | (edges[1:] <= -NARROW)].sum(axis=1) / moments["size"]
    beyond = outside[-20:].mean()
    far = counts[:, (edges[:-1] >= WIDE) | (edges[1:] <= -WIDE)].sum() / moments["size"].sum()
    kept = counts.sum(axis=1) + sum(moments[name] for name in ("under", "over", "nan", "pos_inf", "neg_inf"))
    diagnosis = run.diagnose()
    return Shown(
        pictures=[
            Picture(narrow, "The first and the last layer: only values between -1 and 1 are on show."),
            Picture(whole, "The same counts, every value on show."),
        ],
        numbers={
            "beyond": f"{100 * beyond:.0f} %",
            "largest": f"{max(-moments['min'].min(), moments['max'].max()):.0f}",
            "values": f"{moments['size'].sum():,}",
        },
        claims={
            "a third of the last layer's values lie beyond 1 in the end": bool(beyond > 0.33),
            "hardly any lies beyond 10": bool(far < 0.02),
            "each value is counted in a bin or beside them": bool((kept == moments["size"]).all()),
            "the training is healthy all the same": diagnosis.healthy,
            "the extremes agree with the occupied bins": bool(
                edges[np.flatnonzero(counts.any(axis=0))[-1]] <= moments["max"].max()
            ),
        },
        run=run,
    )


CARD = Card(
    title="Values out of range",
    summary="What lies outside of the window is not lost: it is counted, and coloured in the strips at the edges.",
    training="the network of [healthy](healthy.md), three epochs of 4,000 digits. One run, drawn twice.",
    make=make,
    see="""
- **1** The strip above the window: its colour is the share of *all* values beyond it, however far. The note says how many that are over the whole training.
- **2** The last layer has left the window: at the end {beyond} of its values lie beyond 1.
- **3** With `window="symlog"` all of it is on show: it reaches {largest}.
""",
    meaning="""
The window is chosen when a chart is *drawn*. Counted is every magnitude a float can have: {values} values of the last layer, and the bins add up to exactly
that. Whether a training is in danger is not a question of the window: this one is healthy. Values that *keep growing* are.
""",
    look_alike="""
[Exploding](exploding.md): the share in the strips grows from batch to batch, and so does the loss. A pink bar above a panel is something else: [NaN or infinities](not_finite.md),
which have no place on the axis and are counted by themselves.
""",
    remedy="""
`window="own"` for each layer's own, `(-10, 10)` to compare with another chart, `"symlog"` for everything. Record with `range=(lo, hi)` only to have the bins of
another tool: `under` and `over` then have the rest, as numbers.
""",
    rule="Rules read the counts, so no window misleads them.",
)
