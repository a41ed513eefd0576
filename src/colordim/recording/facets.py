"""Histograms by output class or channel: the parts of a layer's output, each a stream of its own.

The parts are cut from the tensor that was counted as a whole just before, so that in every column their bins and
counters add up to those of the whole, and each has its number of calls.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from colordim.column import Facet, Kind, Reduction
from colordim.errors import ArgumentError, SelectionError
from colordim.recording.channels import channel_dim
from colordim.recording.counters import Counters
from colordim.recording.notices import Notices
from colordim.recording.select import Target, nearest

__all__ = ["MOST", "Facets", "FacetsOf", "Rule", "as_rules"]

#: ``"class"``, ``"channel"``, names of classes, or ``{"dim": ..., "names": ...}``.
FacetsOf = str | Iterable[str] | Mapping[str, Any]

#: Facets of one layer at most; a layer with more is recorded whole.
MOST = 128

# Where a part lies in longer runs than this, it is counted in place. Transposing all of them once costs 0.6 to 0.9 of
# counting each with strides ([N, 10] to [N, 128], and images up to 28 x 28), but 1.3 of it with runs of 64 x 64.
_RUN = 1024


@dataclass(frozen=True)
class Rule:
    """How the output of a layer is cut.

    Attributes
    ----------
    by : {"class", "channel"} or int
        An integer is a dimension.
    names : tuple of str
        What the parts are called; empty if by their numbers.
    module : Module
        The layer.
    """

    by: str | int
    names: tuple[str, ...]
    module: nn.Module

    def dim(self, dims: int) -> int | None:
        """Return the dimension along which an output with `dims` dimensions is cut, from 0; None if it has none.

        Classes are the last dimension of ``[N, C]`` and ``[N, T, C]``, and dimension 1 of ``[N, C, H, W]`` and of
        outputs with more dimensions. Channels are where :func:`colordim.recording.channels.channel_dim` says.
        """
        if isinstance(self.by, int):
            return self.by % dims if -dims <= self.by < dims else None
        if dims < 2:
            return None
        if self.by == "channel":
            return channel_dim(self.module, dims)
        return 1 if dims >= 4 else dims - 1


def as_rules(facets: Mapping[str, FacetsOf] | None, targets: Sequence[Target]) -> dict[str, Rule]:
    """Return the rule of each layer that a pattern of ``facets=`` matches, by its name; the first pattern counts.

    Raises
    ------
    ArgumentError
        If `facets` is no mapping, or a value none of :data:`FacetsOf`.
    SelectionError
        If a pattern matches no recorded layer; the message names the nearest.
    """
    if facets is None:
        return {}
    if not isinstance(facets, Mapping):
        raise ArgumentError(
            f'facets={facets!r} cannot be: it maps layers to what they are cut by, as {{"head": "class"}}.',
            page="facets",
        )
    rules: dict[str, Rule] = {}
    for pattern, value in facets.items():
        by, names = _parse(pattern, value)
        matching = [t for t in targets if t.name == pattern or fnmatch.fnmatchcase(t.name, str(pattern))]
        if not matching:
            known = nearest(str(pattern), (target.name for target in targets))
            raise SelectionError(f"no recorded layer matches {pattern!r} of facets=; {known}.", page="facets")
        for target in matching:
            rules.setdefault(target.name, Rule(by, names, target.module))
    return rules


def _parse(pattern: str, value: FacetsOf) -> tuple[str | int, tuple[str, ...]]:
    if isinstance(value, str):
        if value in ("class", "channel"):
            return value, ()
    elif isinstance(value, Mapping):
        dim = value.get("dim", "class")
        named = isinstance(value.get("names", ()), Iterable) and not isinstance(value.get("names", ()), str)
        whole = dim == "class" or (isinstance(dim, int) and not isinstance(dim, bool))
        if value and set(value) <= {"dim", "names"} and whole and named:
            return dim, tuple(str(name) for name in value.get("names", ()))
    elif isinstance(value, Iterable) and (names := tuple(str(name) for name in value)):
        return "class", names
    raise ArgumentError(
        f'the facets of {pattern!r} cannot be {value!r}: give "class", "channel", the names of the classes, or '
        '{"dim": 1, "names": [...]}.',
        page="facets",
    )


class Facets:
    """Counts the parts of outputs, and of their gradients.

    Parameters
    ----------
    rules : mapping of str to Rule
        By the name of the layer.
    layers : sequence of str
        Names of all recorded layers, to tell which of them a stream belongs to.
    counters : Counters
    notices : Notices
    """

    def __init__(self, rules: Mapping[str, Rule], layers: Sequence[str], counters: Counters, notices: Notices) -> None:
        self._rules = rules
        self._layers = sorted(layers, key=len, reverse=True)
        self._counters = counters
        self._notices = notices
        self._of: dict[str, Rule | None] = {}
        self._streams: dict[tuple[Kind, str], list[Facet]] = {}
        self._refused: set[tuple[Kind, str]] = set()

    def count(
        self,
        name: str,
        tensor: Tensor,
        module: str,
        arguments: str,
        kind: Kind = "activation",
        reduction: Reduction = "sum",
        order: int | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        """Count the parts of a tensor of which the whole has just been counted, with the same arguments."""
        rule = self._rule(name) if kind in ("activation", "gradient") else None
        if rule is None or (kind, name) in self._refused:
            return
        try:
            known = self._streams.get((kind, name), [])
            if not tensor.numel() and (known or tensor.dim() < 2):  # a call all the same
                parts = (tensor.reshape(-1),) * len(known)
            else:
                parts = _parts(tensor, rule, len(shape) if shape else tensor.dim())
            facets = self._facets(kind, name, len(parts), rule)
            for each, part in zip(facets, parts, strict=True):
                if not self._counters.count(
                    f"{name}[{each.index}]", part, module, arguments, kind, reduction, each, order
                ):
                    raise _RefusalError("its values cannot be read")
        except Exception as error:  # it is recorded whole: half of the parts would not add up to it
            self._refused.add((kind, name))
            self._counters.forget(kind, [f"{name}[{each.index}]" for each in self._streams.get((kind, name), ())])
            reason = str(error) if isinstance(error, _RefusalError) else f"{type(error).__name__}: {error}"
            self._notices.say(
                f"facets:{kind}:{name}", f"{name!r} is recorded whole, without facets: {reason}.", "facets"
            )

    def has(self, name: str, kind: Kind = "activation") -> bool:
        """Return whether the stream of that name is a facet."""
        of, _, index = name.rpartition("[")
        facets = self._streams.get((kind, of))
        return facets is not None and index.removesuffix("]") in map(str, range(len(facets)))

    def _rule(self, name: str) -> Rule | None:
        if name not in self._of:
            layer = next(
                (each for each in self._layers if name == each or name.startswith((f"{each}[", f"{each}."))), ""
            )
            self._of[name] = self._rules.get(layer)
        return self._of[name]

    def _facets(self, kind: Kind, name: str, number: int, rule: Rule) -> list[Facet]:
        """Return the facets of a stream, whose number is that of its first tensor."""
        if number > MOST:
            raise _RefusalError(f"it has {number} of them, and {MOST} is the most")
        facets = self._streams.get((kind, name), [])
        if facets and number != len(facets):
            raise _RefusalError(f"it has {number} of them, and had {len(facets)} before")
        if facets or not number:
            return facets
        named = rule.names if len(rule.names) == number else ()
        if rule.names and not named:
            self._notices.say(
                f"facet names:{name}",
                f"{name!r} has {number} classes and facets= names {len(rule.names)} of them, so they go by their "
                "numbers: give as many names.",
                "facets",
            )
        for index in range(number):
            if self._counters.has(kind, f"{name}[{index}]"):
                raise _RefusalError(f"{name}[{index}] is the name of another stream already")
        return self._streams.setdefault(
            (kind, name), [Facet(name, index, named[index] if named else str(index)) for index in range(number)]
        )


class _RefusalError(Exception):
    """Why a tensor is not cut into parts; the message is for the user."""


def _parts(tensor: Tensor, rule: Rule, dims: int) -> tuple[Tensor, ...]:
    """Return the parts of a tensor, which of a gradient may have been flattened up to its last of `dims` dimensions."""
    wrapped = type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__  # such as a shard of a DTensor
    if wrapped or is_functorch_wrapped_tensor(tensor) or tensor.is_nested or tensor.layout is not torch.strided:
        raise _RefusalError("it is no dense tensor of its own, but wrapped, nested or sparse")
    tensor = tensor.detach().as_subclass(Tensor)
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    dim = rule.dim(dims)
    if dim is not None and tensor.dim() != dims:
        dim = tensor.dim() - 1 if dim == dims - 1 and tensor.dim() else None
    if dim is None:
        by = f"dimension {rule.by}" if isinstance(rule.by, int) else f"{rule.by} dimension"
        raise _RefusalError(f"with {tensor.dim()} dimensions, it has no {by}")
    rows = tensor.movedim(dim, 0)
    return (rows if tensor.stride(dim) >= _RUN else rows.contiguous()).unbind(0)
