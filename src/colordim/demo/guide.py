"""What to look at in the demo's picture, and the commands to look further."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from colordim.demo.training import Epoch

__all__ = ["commands", "guide"]

_TEXT = """# What to look at

Left, the network as it comes, with a learning rate of 0.6. Right, the same network with batch norm and
Kaiming initialisation; its learning rate rises to the same 0.6 and falls again. Every column of colours is
one batch: its height is the value of the activations, its colour how many of them have it.

1. **Rise and crash.** Left, in conv3 and conv4: the values spread faster and faster, then fall back to
   almost zero from one batch to the next, and start again. Each crash throws away what was learned; the
   loss above jumps, and returns to that of guessing (2.3).
2. **Deeper is worse.** Compare the rows: conv1 hardly moves, and each layer after it multiplies what the
   one before it does. At the start conv4 is a thin bright line at zero: hardly any signal gets through.
3. **Health is dull.** Right: from the first batch to the last the values are spread evenly about zero, as
   widely in the fourth layer as in the first, and the loss just falls.
4. **The head learns to say yes and no.** Bottom right: from a narrow band the outputs grow a broad
   bright belt below zero (the nine digits that it is not) and a thinner one above it (the one that it is).

Accuracy on {valid} digits that were not trained on, by epoch:

    bad   {bad}
    good  {good}

Where exactly the crashes come depends on the seed and, after the first, on the last digits of your
processor's sums; that they come does not.

# Look further

{commands}
"""


def guide(bad: Sequence[Epoch], good: Sequence[Epoch], valid: int, folder: Path) -> str:
    """Return the guide as Markdown."""
    return _TEXT.format(
        valid=f"{valid:,}",
        bad=accuracies(bad),
        good=accuracies(good),
        commands="\n".join(f"    {command}" for command in commands(folder)),
    )


def accuracies(epochs: Sequence[Epoch]) -> str:
    """Return the accuracies of all epochs in per cent."""
    return "  ".join(f"{100 * epoch.accuracy:3.0f} %" for epoch in epochs)


def commands(folder: Path) -> list[str]:
    """Return commands that show more of the two runs, as they are typed in a shell."""
    place, bad, good = (shlex.quote(str(path)) for path in (folder, folder / "bad", folder / "good"))
    colordim = program()
    return [
        f"{colordim} view {place}",
        f"{colordim} diagnose {bad} {good}",
        f"{colordim} ls {place}",
        f"{colordim} show {bad} --terminal --layer conv4 --window symlog",
        f"{colordim} show {bad} --layer 'conv*' --window symlog --mean --out bad.png",
        f"{colordim} show {good} --layer head --profiles --out good-head.png",
        f"{colordim} show {bad} --chart dead --out bad-dead.png",
    ]


def program() -> str:
    """Return what to type for the program that runs now: its name, or its path where the shell does not find it."""
    called = Path(sys.argv[0])
    if called.name != "colordim" or shutil.which("colordim") == str(called.absolute()) or not called.exists():
        return "colordim"
    return shlex.quote(str(called))
