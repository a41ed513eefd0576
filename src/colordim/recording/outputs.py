"""From whatever a module returns to the plain tensors in it, each with a name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

__all__ = ["tensors"]

# Deeper nesting than this is a data structure of its own (or refers to itself), not an output.
MAX_DEPTH = 6


def tensors(output: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in the output of a module, and how they are named.

    Parameters
    ----------
    output : object
        A tensor, or tuples, lists, mappings, named tuples and dataclasses of tensors, to any sensible depth.
        The data of a PackedSequence counts, its batch sizes do not. Anything else is passed over.

    Yields
    ------
    (str, Tensor)
        "" for a tensor itself, ``[i]`` for an item, ``.key`` for a named one, joined where nested.
    """
    if isinstance(output, Tensor):
        yield name, output
    elif output is None or depth > MAX_DEPTH:
        return
    elif isinstance(output, PackedSequence):  # a tuple by type, whose other parts are lengths and orders
        yield name, output.data
    elif isinstance(output, Mapping):
        for key, value in output.items():
            text = f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"
            yield from tensors(value, name + text, depth + 1)
    elif isinstance(output, tuple) and hasattr(output, "_fields"):
        for key, value in zip(output._fields, output, strict=True):
            yield from tensors(value, f"{name}.{key}", depth + 1)
    elif isinstance(output, (tuple, list)):
        for i, value in enumerate(output):
            yield from tensors(value, f"{name}[{i}]", depth + 1)
    elif is_dataclass(output) and not isinstance(output, type):
        for part in fields(output):
            yield from tensors(getattr(output, part.name, None), f"{name}.{part.name}", depth + 1)
