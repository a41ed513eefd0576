"""Finding modules that were put in the place of recorded ones, whose hooks went with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import nn

from colordim.recording.select import Target

__all__ = ["replaced", "worth_a_look"]


def worth_a_look(index: int) -> bool:
    """Return whether to look for replaced modules before the batch with this number: 1, 2, 4, 8, ...

    A model is changed before the training, by its wrappers, or between its phases; looking through
    two thousand modules takes a millisecond.
    """
    return index > 0 and index & (index - 1) == 0


def replaced(targets: Sequence[Target], candidates: Iterable[Target]) -> Iterator[tuple[int, Target]]:
    """Yield the numbers of the targets in whose place another module is now, and what is there.

    A target that is nowhere in the model any more is not among them: there is nothing to record.

    Parameters
    ----------
    targets : sequence of Target
        What is recorded.
    candidates : iterable of Target
        All modules of the model as it is now.
    """
    now: dict[str, nn.Module] = {}
    there: set[int] = set()
    for candidate in candidates:
        now.setdefault(candidate.name, candidate.module)
        there.add(id(candidate.module))
    for number, target in enumerate(targets):
        module = now.get(target.name)
        if module is not None and module is not target.module and id(target.module) not in there:
            yield number, Target(target.name, module)
