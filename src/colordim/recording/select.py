"""Which modules of a model are recorded, and under which names."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from colordim.errors import SelectionError

__all__ = [
    "Layers",
    "Observed",
    "Target",
    "all_modules",
    "class_name",
    "is_leaf",
    "layer_name",
    "nearest",
    "own_parameters",
    "roots",
    "select",
]

#: One way to name layers: a name or pattern, a class, or a function of name and module.
Selector = str | type[nn.Module] | nn.Module | Callable[[str, nn.Module], bool]
#: What `layers=` accepts: nothing (all leaves), ``"blocks"``, a selector, or several.
Layers = Selector | Sequence[Selector] | None

# Modules that hold others, or parameters, and are never called themselves.
_CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
# Modules that compute with their children's parameters instead of calling the children.
_WHOLE = (nn.MultiheadAttention,)


@dataclass(frozen=True)
class Target:
    """A module to record and its name within the model."""

    name: str
    module: nn.Module


class Observed(nn.Module):
    """Stands for a model of another library, of which only what is observed is known."""


def roots(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose call is a call of the model: the model, and what wrappers around it wrap."""
    chain = [model]
    while True:
        parallel = isinstance(chain[-1], (nn.DataParallel, nn.parallel.DistributedDataParallel))
        inner = getattr(chain[-1], "module" if parallel else "_orig_mod", None)  # the latter is torch.compile's
        if not isinstance(inner, nn.Module):
            return chain
        chain.append(inner)


def class_name(module: nn.Module) -> str:
    """Return the name of a module's class; of one that FSDP2 has made its own class for, that of the class below."""
    kind = type(module)
    wrapped = kind.__name__.startswith("FSDP") and any(base.__name__ == "FSDPModule" for base in kind.__mro__)
    return kind.__bases__[-1].__name__ if wrapped else kind.__name__


def layer_name(path: str, module: nn.Module) -> str:
    """Return the name of a module's stream: its path without what torch.compile adds, or its class if it has none."""
    return ".".join(part for part in path.split(".") if part and part != "_orig_mod") or class_name(module)


def select(model: nn.Module, layers: Layers = None) -> list[Target]:
    """Return the modules that `layers` names, in the order in which the model lists them.

    Parameters
    ----------
    model : Module
        Wrappers (DataParallel, DistributedDataParallel, torch.compile) are looked through, and do not
        appear in the names.
    layers : None, str, type, Module, callable, or a sequence of them
        None: all leaf modules, where :class:`torch.nn.MultiheadAttention` counts as one.
        ``"blocks"``: besides the leaves the repeated blocks of the model, and those of their parts that
        are no leaves (a transformer's residual stream, attention and MLP).
        Any other string: the module of that name, or the pattern (``*``, ``?``, ``[...]``) of leaf
        names; of any module's name where no leaf matches. A class: its instances. A module: that one. A function of name
        and module: where it returns true. A module that is shared appears once, under its first name.

    Raises
    ------
    SelectionError
        If the model has nothing to record, or a selector matches nothing; the message names the nearest.
    """
    if not isinstance(model, nn.Module):
        raise SelectionError(f"a model must be a torch.nn.Module, not {type(model).__name__}: pass the module itself.")
    candidates = list(all_modules(model))
    # The children of an attention that is recorded whole are never called.
    unreachable = {id(child) for t in candidates if isinstance(t.module, _WHOLE) for child in t.module.children()}
    leaves = [t for t in candidates if is_leaf(t.module) and id(t.module) not in unreachable]
    if not candidates or (layers is None and not leaves):
        raise SelectionError(
            f"{type(model).__name__} has no module that could be recorded: give it submodules that are called, "
            "or record tensors of your own with colordim.observe(name, tensor)."
        )
    if layers is None:
        return leaves
    one = isinstance(layers, (str, nn.Module)) or callable(layers) or not isinstance(layers, Iterable)
    selectors: list[Selector] = [cast("Selector", layers)] if one else list(cast("Sequence[Selector]", layers))
    if not selectors:
        raise SelectionError("layers is empty, so nothing would be recorded: leave it out to record all leaf modules.")
    chosen: set[int] = set()
    for selector in selectors:
        chosen |= {id(target.module) for target in _matching(selector, candidates, leaves, model)}
    return [target for target in candidates if id(target.module) in chosen]


def own_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters that a module computes with by itself, and their names within it.

    These include parameters of children that are never called: of parametrisations, of an attention's output
    projection, and of lists of parameters.
    """
    yield from module.named_parameters(recurse=is_leaf(module), remove_duplicate=False)
    for name, child in module.named_children():
        if isinstance(child, (nn.ParameterList, nn.ParameterDict)):
            yield from child.named_parameters(name, remove_duplicate=False)


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the clause of an error message that names what is most like `name`."""
    known = list(names)
    near = difflib.get_close_matches(name.strip("*"), known, n=3, cutoff=0.3) or known[:3]
    return "the nearest is " + ", ".join(repr(item) for item in near)


def all_modules(model: nn.Module) -> Iterator[Target]:
    """Yield every module that could be recorded, with its name; a shared one once, under its first name."""
    for path, module in roots(model)[-1].named_modules():
        if "parametrizations" in path.split(".") or isinstance(module, (torch.jit.ScriptModule, *_CONTAINERS)):
            continue
        if hasattr(module, "_orig_mod"):  # the compiled wrapper of a submodule; the submodule follows
            continue
        yield Target(layer_name(path, module), module)


def is_leaf(module: nn.Module) -> bool:
    """Return whether a module calls no other: nothing but a parametrisation is inside, or it computes as a whole."""
    return isinstance(module, _WHOLE) or all(name == "parametrizations" for name, _ in module.named_children())


def _matching(selector: Selector, candidates: list[Target], leaves: list[Target], model: nn.Module) -> list[Target]:
    if selector == "blocks":
        return leaves + _blocks(candidates, model)
    if isinstance(selector, str):
        exact = [target for target in candidates if target.name == selector]
        by_leaf = exact or [target for target in leaves if fnmatch.fnmatchcase(target.name, selector)]
        found = by_leaf or [target for target in candidates if fnmatch.fnmatchcase(target.name, selector)]
        if not found:
            raise SelectionError(f"no layer matches {selector!r}; {nearest(selector, (t.name for t in candidates))}.")
        return found
    if isinstance(selector, type):
        found = [target for target in candidates if isinstance(target.module, selector)]
        if not found:
            types = dict.fromkeys(type(target.module).__name__ for target in candidates)
            raise SelectionError(f"no layer is a {selector.__name__}; {nearest(selector.__name__, types)}.")
        return found
    if isinstance(selector, nn.Module):
        found = [target for target in candidates if target.module is selector]
        if not found:
            raise SelectionError(
                f"the {type(selector).__name__} in layers= is no part of the model: name a layer of it."
            )
        return found
    if callable(selector):
        found = [target for target in candidates if selector(target.name, target.module)]
        if not found:
            raise SelectionError(
                f"no layer satisfies {getattr(selector, '__name__', selector)!r}: it was false for all "
                f"{len(candidates)} modules, such as {candidates[-1].name!r}."
            )
        return found
    raise SelectionError(f"layers takes names, classes, modules and functions, not {selector!r}.")


def _blocks(candidates: list[Target], model: nn.Module) -> list[Target]:
    by_module = {id(target.module): target for target in candidates}
    found: dict[int, Target] = {}
    for module in model.modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)):
            continue
        siblings = [child for child in module.children() if not is_leaf(child)]
        for block in siblings:
            if sum(type(other) is type(block) for other in siblings) < 2:
                continue
            parts = [block, *(child for child in block.children() if not is_leaf(child))]
            found |= {id(part): by_module[id(part)] for part in parts if id(part) in by_module}
    if not found:
        raise SelectionError(
            f"{type(model).__name__} has no repeated blocks: name the layers, or leave layers out to record all leaves."
        )
    return list(found.values())
