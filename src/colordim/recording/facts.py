"""What a model is, apart from what runs through it: its modules and parameters as plain JSON types."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from colordim.binning.tensors import flatten
from colordim.recording.select import class_name, layer_name, roots

__all__ = ["SAMPLED_ABOVE", "Moments", "describe", "fans", "identity", "moments_of", "or_none"]

T = TypeVar("T")

#: Mean, standard deviation, and how many values they are of; None where they cannot be known.
Moments = tuple[float, float, int] | None

#: Parameters with more values than this are sampled for their mean and standard deviation: the standard deviation of
#: 2**15 Gaussian values is off by 0.4 % (1 / sqrt(2 n)), and so many torch works through on one thread.
SAMPLED_ABOVE = 1 << 15

# A sample is about 128 runs of 256 adjacent values, spread evenly.
_RUN, _RUNS = 256, 128


def describe(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    moments: dict[int, Moments] | None = None,
) -> dict[str, Any]:
    """Describe a model in JSON types; what cannot be known is None, and nothing raises.

    Parameters
    ----------
    model : Module
        Wrappers (DataParallel, DistributedDataParallel, torch.compile) are looked through.
    optimizers : sequence of Optimizer
        Those that train the model, if they are known.
    moments : dict of int to Moments, optional
        Moments that were taken before, by the ``id`` of their parameter; those that are taken now are added.

    Returns
    -------
    dict
        ``named_modules``: a row for each module, shared ones once, with

        - ``path``, as the streams are named: the model itself goes by its class,
        - ``class``, ``arguments`` (its ``extra_repr()``), ``training``,
        - ``children``: their paths, in their order,
        - ``parameters`` and ``trainable``: how many values it owns, and how many of them require gradients;
          ``parameters_total`` and ``trainable_total`` with its descendants', shared ones once.

        ``named_parameters``: a row for each parameter of each module, with

        - ``path``, ``module`` (the path of the module that it belongs to), ``shape``, ``dtype``, ``requires_grad``,
        - ``shared_with``: other paths of the same parameter,
        - ``in_optimizer``: None if no optimiser is known; where true, ``optimizer`` and ``group`` are the numbers of
          the optimiser and of its group, ``lr`` and ``weight_decay`` those of the group,
        - ``mean``, ``std`` (population, in float64) of ``counted`` of its values, as :func:`moments_of` takes them,
        - ``fan_in``, ``fan_out`` as in ``torch.nn.init``; None below two dimensions.
    """
    try:
        root = roots(model)[-1]
        return {
            "named_modules": _modules(root),
            "named_parameters": _parameters(root, optimizers, {} if moments is None else moments),
        }
    except Exception:  # a model may override anything that is asked here
        return {}


def moments_of(tensor: Tensor) -> Moments:
    """Return mean and standard deviation of a tensor's values, and how many values they are of.

    Parameters
    ----------
    tensor : Tensor
        Of up to :data:`SAMPLED_ABOVE` values all are taken, of more an even sample of about so many.
        Of a shard (DTensor) it is the local part.

    Returns
    -------
    (float, float, int) or None
        None for tensors without values (meta, lazy, empty), for quantised, sparse, complex and integer ones, and where
        a moment is not finite.
    """
    return or_none(lambda: _moments_of(tensor))


def fans(shape: Sequence[int]) -> tuple[int, int] | tuple[None, None]:
    """Return fan-in and fan-out of a weight of that shape, as ``torch.nn.init`` computes them: (None, None) below 2-D.

    The first dimension is taken for the outputs, the second for the inputs, and the others for the receptive field;
    a transposed convolution has them the other way round, there and here.
    """
    if len(shape) < 2:
        return None, None
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def identity(model: nn.Module) -> list[object]:
    """Return what differs as soon as a module or parameter is replaced, changed in place, frozen or cast."""
    found: list[object] = []
    for path, module in roots(model)[-1].named_modules():
        found.append((path, id(module)))
        for name, parameter in module._parameters.items():
            if parameter is not None:
                version = or_none(lambda parameter=parameter: parameter._version)  # type: ignore[misc]
                found.append((name, id(parameter), version, parameter.dtype, parameter.requires_grad))
    return found


def _modules(root: nn.Module) -> list[dict[str, Any]]:
    # The compiled wrapper of a submodule stands for what it wraps, which follows it.
    paths = {m: layer_name(path, m) for path, m in root.named_modules() if not hasattr(m, "_orig_mod")}
    return [
        {
            "path": path,
            "class": class_name(module),
            "arguments": or_none(module.extra_repr),
            "training": bool(module.training),
            "children": [paths[getattr(child, "_orig_mod", child)] for child in module.children()],
            **_sizes(module, "", recurse=False),
            **_sizes(module, "_total", recurse=True),
        }
        for module, path in paths.items()
    ]


def _sizes(module: nn.Module, suffix: str, recurse: bool) -> dict[str, int | None]:
    parameters = list(module.parameters(recurse))
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    return {f"parameters{suffix}": _size(parameters), f"trainable{suffix}": _size(trainable)}


def _size(parameters: Sequence[Tensor]) -> int | None:
    if any(is_lazy(parameter) for parameter in parameters):
        return None
    return or_none(lambda: sum(int(parameter.numel()) for parameter in parameters))


def _parameters(
    root: nn.Module, optimizers: Sequence[torch.optim.Optimizer], moments: dict[int, Moments]
) -> list[dict[str, Any]]:
    owners = {id(p): group for p, group in _groups(optimizers)}
    named = [
        (f"{path}.{name}" if path else name, layer_name(path, module), parameter)
        for path, module in root.named_modules()
        for name, parameter in module._parameters.items()
        if parameter is not None
    ]
    # named_modules() passes a shared module by when it meets it again, so its other paths are asked for here.
    everywhere: dict[int, list[str]] = {}
    for path, parameter in root.named_parameters(remove_duplicate=False):
        everywhere.setdefault(id(parameter), []).append(_plain(path))
    rows = []
    for path, module, parameter in named:
        if id(parameter) not in moments:
            moments[id(parameter)] = moments_of(parameter)
        mean, std, counted = moments[id(parameter)] or (None, None, None)
        shape = None if is_lazy(parameter) else [int(size) for size in parameter.shape]
        fan_in, fan_out = fans(shape) if shape is not None else (None, None)
        path = _plain(path)
        rows.append(
            {
                "path": path,
                "module": module,
                "shape": shape,
                "dtype": str(parameter.dtype).removeprefix("torch."),
                "requires_grad": bool(parameter.requires_grad),
                "shared_with": [other for other in everywhere.get(id(parameter), []) if other != path],
                "in_optimizer": id(parameter) in owners if optimizers else None,
                **owners.get(id(parameter), dict.fromkeys(("optimizer", "group", "lr", "weight_decay"))),
                "mean": mean,
                "std": std,
                "counted": counted,
                "fan_in": fan_in,
                "fan_out": fan_out,
            }
        )
    return rows


def _plain(path: str) -> str:
    """Return a path without what torch.compile puts into it."""
    return ".".join(part for part in path.split(".") if part != "_orig_mod")


def _groups(optimizers: Sequence[torch.optim.Optimizer]) -> list[tuple[Tensor, dict[str, Any]]]:
    return [
        (
            parameter,
            {
                "optimizer": number,
                "group": index,
                "lr": _number(group.get("lr")),
                "weight_decay": _number(group.get("weight_decay")),
            },
        )
        for number, optimizer in enumerate(optimizers)
        for index, group in enumerate(optimizer.param_groups)
        for parameter in group["params"]
    ]


@torch.no_grad()
def _moments_of(tensor: Tensor) -> Moments:
    if is_lazy(tensor) or tensor.is_quantized or not tensor.dtype.is_floating_point:
        return None
    flat = flatten(tensor)
    if flat is None or flat[1] or not flat[0].numel():
        return None
    values = flat[0]
    n = values.numel()
    if n > SAMPLED_ABOVE:
        values = values.unfold(0, _RUN, (n - _RUN) // (_RUNS - 1))
    if values.device.type == "mps":  # without float64
        values = values.cpu()
    values = values.double()
    mean, std = torch.stack([values.mean(), values.std(correction=0)]).tolist()
    return (mean, std, values.numel()) if math.isfinite(mean) and math.isfinite(std) else None


def _number(value: object) -> float | None:
    """Return a number, or the value of a tensor that is one; None for what is neither or not finite."""
    number = or_none(lambda: float(value))  # type: ignore[arg-type]
    return number if number is not None and math.isfinite(number) else None


def or_none(function: Callable[[], T]) -> T | None:
    """Return what a function returns, or None if it raises: a model may override anything that is asked of it."""
    try:
        return function()
    except Exception:
        return None
