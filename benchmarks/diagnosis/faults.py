"""The fault families: which knob is turned how far in which architecture, and what a good teacher would call it.

A family is a function of an architecture that yields (strength, changes of the recipe, label). Families in `HELD_OUT_FAMILIES`
are in no part but the held-out one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from benchmarks.diagnosis.data import SHAPES, load
from benchmarks.diagnosis.spec import Label, Recipe, Spec
from benchmarks.diagnosis.zoo import ARCHITECTURES, Architecture

__all__ = ["FAMILIES", "HELD_OUT_FAMILIES", "OUT_OF_SCOPE", "faulty", "out_of_scope"]

Case = tuple[str, dict[str, Any], Label]
Family = Callable[[Architecture], Iterator[Case]]

RELUS = ("mlp3", "mlp8", "wine", "regression", "cnn", "cnn_bn", "resmlp_ln", "gru", "mlp_gelu")
CHAINS = (
    "mlp3",
    "mlp8",
    "tanh5",
    "wine",
    "cnn",
    "cnn_bn",
    "mlp_gelu",
    "cnn_gn",
)  # a layer behind the other, nothing around
UNNORMED = ("mlp3", "mlp8", "wine", "regression", "cnn", "mlp_gelu")


def faulty(arch: str, seed: int, families: tuple[str, ...]) -> Iterator[Spec]:
    """Yield the faults of an architecture that are in `families`."""
    architecture = ARCHITECTURES[arch]
    for family in families:
        makes, where = FAMILIES[family]
        if where and arch not in where:
            continue
        for strength, changes, label in makes(architecture):
            recipe = replace(architecture.recipe, **changes)
            yield Spec(arch, seed, "fault", family, strength, recipe, label)


def out_of_scope(arch: str, seed: int) -> Iterator[Spec]:
    """Yield trainings whose fault is in the data: of the inside of the model nothing is to be said."""
    for family, changes in OUT_OF_SCOPE.items():
        yield Spec(arch, seed, "out-of-scope", family, "", replace(ARCHITECTURES[arch].recipe, **changes), Label())


def _batches(recipe: Recipe) -> int:
    rows = len(load(recipe, 0).x)
    return -(-rows // recipe.batch_size)


def _half(a: Architecture) -> int:
    return a.recipe.epochs // 2 * _batches(a.recipe) + _batches(a.recipe) // 3


def _inner(a: Architecture) -> int:
    return (a.recipe.depth + 1) // 2


def _bias_owner(a: Architecture, number: int) -> str:
    group = a.hidden(number)
    return group[1] if len(group) == 3 else group[0]


# -- units -----------------------------------------------------------------------------------------------------------------


def _dead_layer(a: Architecture) -> Iterator[Case]:
    for number in sorted({1, _inner(a), a.recipe.depth}):
        label = Label(("dead-units",), a.hidden(number))
        yield f"layer{number}", {"dead": (_bias_owner(a, number), 1.0)}, label


def _dead_part(a: Architecture) -> Iterator[Case]:
    number = _inner(a)
    for share in (0.7, 0.95):
        yield f"{share:.0%}", {"dead": (_bias_owner(a, number), share)}, Label(("dead-units",), a.hidden(number))


def _dead_output(a: Architecture) -> Iterator[Case]:
    yield "", {"shut_output": True}, Label(("dead-output", "dead-units"), ("output", "output_act"))


def _saturated_tanh(a: Architecture) -> Iterator[Case]:
    for gain in (5.0, 20.0, 100.0):
        label = Label(("saturation", "poor-init"), (*a.hidden(1), *a.hidden(2)))
        yield f"x{gain:.0f}", {"activation": "tanh", "gain": gain}, label


def _deep_sigmoid(a: Architecture) -> Iterator[Case]:
    for depth in (5, 8):
        yield (
            f"depth{depth}",
            {"activation": "sigmoid", "depth": depth, "init": "default"},
            Label(("vanishing-gradients",)),
        )


# -- the start -------------------------------------------------------------------------------------------------------------


def _tiny_init(a: Architecture) -> Iterator[Case]:
    for gain in (0.1, 0.01):
        yield f"x{gain:g}", {"gain": gain, "output_gain": gain}, Label(("poor-init", "vanishing-gradients"))


def _large_init(a: Architecture) -> Iterator[Case]:
    for gain in (4.0, 15.0):
        yield f"x{gain:g}", {"gain": gain}, Label(("poor-init", "exploding-activations"))


def _constant_init(a: Architecture) -> Iterator[Case]:
    for value in (0.0, 0.05):
        yield f"{value:g}", {"constant": value}, Label(("poor-init",))


def _large_output(a: Architecture) -> Iterator[Case]:
    for gain in (20.0, 100.0):
        yield f"x{gain:.0f}", {"output_gain": gain}, Label(("overconfident-start",), ("output",))


def _exploding_stack(a: Architecture) -> Iterator[Case]:
    for depth, gain in ((12, 1.5), (20, 2.0)):
        yield (
            f"{depth}x{gain:g}",
            {"norm": "", "depth": depth, "gain": gain},
            Label(("exploding-activations", "poor-init")),
        )


def _raw_inputs(a: Architecture) -> Iterator[Case]:
    yield "adam", {"inputs": "raw", "optimizer": "adam", "lr": min(a.recipe.lr, 3e-3)}, Label(("input-scale",))
    yield "sgd", {"inputs": "raw", "optimizer": "sgd", "lr": 0.02}, Label(("input-scale",))


# -- steps -----------------------------------------------------------------------------------------------------------------


def _high_lr(a: Architecture) -> Iterator[Case]:
    for factor in (30, 100, 300):
        yield f"x{factor}", {"lr": a.recipe.lr * factor}, Label(("learning-rate-too-high", "divergence"))


def _low_lr(a: Architecture) -> Iterator[Case]:
    for factor in (1e-3, 1e-4):
        yield f"x{factor:g}", {"lr": a.recipe.lr * factor}, Label(("learning-rate-too-low",))


def _collapse(a: Architecture) -> Iterator[Case]:
    names = ("collapse-and-recover", "learning-rate-too-high")
    for lr, momentum in ((0.6, 0.0), (1.5, 0.0), (0.1, 0.9)):
        changes = {"optimizer": "sgd", "lr": lr, "momentum": momentum, "init": "default"}
        yield f"sgd{lr}" + "m" * bool(momentum), changes, Label(names)


def _spike(a: Architecture) -> Iterator[Case]:
    at = _half(a)
    for factor, batches in ((100.0, 3), (1000.0, 3)):
        label = Label(("learning-rate-too-high", "dead-units"), onset=at)
        yield f"x{factor:.0f}", {"spike": (at, batches, factor)}, label


def _bn_pair(a: Architecture) -> Iterator[Case]:
    names = ("learning-rate-too-high", "divergence", "collapse-and-recover")
    for lr in (0.3, 1.0):
        changes = {"optimizer": "sgd", "lr": lr, "momentum": 0.9, "init": "kaiming"}
        yield f"without-sgd{lr}", {**changes, "norm": ""}, Label(names)
        yield f"with-sgd{lr}", {**changes, "norm": "batch"}, Label(("batch-norm-hides-drift", "learning-rate-too-high"))


def _no_zero_grad(a: Architecture) -> Iterator[Case]:
    yield "", {"zero_grad": False}, Label(("gradients-not-zeroed",))


def _left_out(a: Architecture) -> Iterator[Case]:
    modules = _weighted_names(a)
    label = ("not-in-optimizer",)
    if len(modules) > 2:
        yield "first", {"left_out": tuple(modules[:1])}, Label(label, tuple(modules[:1]))
    yield "most", {"left_out": tuple(modules[:-1])}, Label(label, tuple(modules[:-1]))
    yield "output", {"left_out": ("output",)}, Label(label, ("output",))


def _detach(a: Architecture) -> Iterator[Case]:
    last = a.recipe.depth
    if a.name in ("transformer", "resmlp_ln"):
        children: list[tuple[str, tuple[str, ...]]] = [("first", ("block1",)), ("last", (f"block{last}",))]
    else:
        children = [("first", a.hidden(1))] * (last > 1) + [("last", a.hidden(last))]
    names = _weighted_names(a)
    for strength, group in children:
        cut_off = names[: names.index(group[-2] if len(group) > 1 else group[0]) + 1]
        yield strength, {"detach": group[-1]}, Label(("no-gradient",), (*cut_off, group[-1]))


def _precision(a: Architecture) -> Iterator[Case]:
    for factor in (1e-5, 1e-6, 1e-7):
        changes = {"half": True, "loss_factor": factor, "optimizer": "adam", "lr": min(a.recipe.lr, 3e-3)}
        yield f"{factor:g}", changes, Label(("precision", "vanishing-gradients"))


# -- values that are no numbers --------------------------------------------------------------------------------------------


def _nan(operation: str) -> Family:
    def cases(a: Architecture) -> Iterator[Case]:
        after = "block1" if a.name in ("transformer", "resmlp_ln") else a.hidden(_inner(a))[-1]
        for strength, at in (("early", 5), ("late", _half(a))):
            yield strength, {"nan": (operation, after, at)}, Label(("not-finite",), (operation,), at)

    return cases


# -- training and validation -----------------------------------------------------------------------------------------------


def _valid_scaled(a: Architecture) -> Iterator[Case]:
    onset = _batches(a.recipe) - 1
    for how in ("raw", "shifted", "dark"):
        yield how, {"valid_inputs": how}, Label(("train-valid-mismatch",), onset=onset)


def _softmax_twice(a: Architecture) -> Iterator[Case]:
    yield "adam", {"softmax": True}, Label(("softmax-twice",), ("softmax", "output"))
    yield (
        "sgd",
        {"softmax": True, "optimizer": "sgd", "lr": 0.02},
        Label(("softmax-twice",), ("softmax", "output")),
    )


def _bn_statistics(a: Architecture) -> Iterator[Case]:
    label = Label(("train-valid-mismatch",), onset=_batches(a.recipe) - 1)
    yield "momentum0", {"bn_momentum": 0.0}, label
    yield "momentum1e-3", {"bn_momentum": 1e-3}, label
    yield "eval-after-first", {"train_mode": "eval-after-first", "lr": 3e-2}, label


def _dropout_on(a: Architecture) -> Iterator[Case]:
    label = Label(("train-valid-mismatch",), onset=_batches(a.recipe) - 1)
    for share in (0.5, 0.8):
        yield f"{share:.0%}", {"dropout": share, "valid_mode": "train"}, label


# -- held out --------------------------------------------------------------------------------------------------------------


def _standing_still(a: Architecture) -> Iterator[Case]:
    names = ("not-in-optimizer", "learning-rate-too-low")
    modules = tuple(_weighted_names(a)[:-1])
    for factor in (0.0, 1e-5):
        yield f"x{factor:g}", {"slow": modules, "slow_factor": factor}, Label(names, modules)


def _jump(a: Architecture) -> Iterator[Case]:
    at, module = _half(a), a.hidden(_inner(a))[0]
    names = ("exploding-activations",) if a.recipe.activation != "tanh" else ("saturation", "exploding-activations")
    group = a.hidden(_inner(a))
    for factor in (30.0, 300.0):
        yield f"x{factor:.0f}", {"jump": (at, module, factor)}, Label(names, group, at, repairable=False)


def _weighted_names(a: Architecture) -> list[str]:
    """Modules with parameters in the order of the calls, the output last; blocks as a whole."""
    first = {"transformer": ["embed", "positions"], "resmlp_ln": ["stem"], "gru": ["gru"]}.get(a.name, [])
    if a.name in ("transformer", "resmlp_ln"):
        return [*first, *(f"block{number}" for number in range(1, a.recipe.depth + 1)), "norm", "output"]
    inner = [name for number in range(1, a.recipe.depth + 1) for name in a.hidden(number)[:-1]]
    return [*first, *inner, "output"]


FAMILIES: dict[str, tuple[Family, tuple[str, ...]]] = {
    "dead-layer": (_dead_layer, RELUS),
    "dead-part": (_dead_part, RELUS),
    "dead-output": (_dead_output, tuple(name for name in ARCHITECTURES if name != "regression")),
    "saturated-tanh": (_saturated_tanh, ("tanh5", "mlp3", "mlp8")),
    "deep-sigmoid": (_deep_sigmoid, ("mlp3", "mlp8", "tanh5")),
    "tiny-init": (_tiny_init, ("mlp8", "tanh5", "cnn", "mlp3", "mlp_gelu")),
    "large-init": (_large_init, ("mlp3", "mlp8", "cnn", "wine", "gru", "resmlp_ln", "mlp_gelu")),
    "constant-init": (_constant_init, ("mlp3", "mlp8", "tanh5", "cnn", "wine", "mlp_gelu", "cnn_gn")),
    "large-output": (
        _large_output,
        ("mlp3", "cnn", "cnn_bn", "transformer", "gru", "tanh5", "wine", "mlp_gelu", "cnn_gn"),
    ),
    "exploding-stack": (_exploding_stack, ("resmlp_ln",)),
    "raw-inputs": (_raw_inputs, ("mlp3", "mlp8", "tanh5", "wine", "regression", "cnn", "gru", "mlp_gelu")),
    "high-lr": (_high_lr, ()),
    "low-lr": (_low_lr, ()),
    "collapse": (_collapse, ("cnn", "mlp8")),
    "spike": (_spike, ("mlp3", "mlp8", "cnn", "wine", "regression", "resmlp_ln", "gru", "mlp_gelu", "cnn_gn")),
    "bn-pair": (_bn_pair, ("cnn", "mlp8")),
    "no-zero-grad": (_no_zero_grad, ()),
    "left-out": (
        _left_out,
        ("mlp3", "mlp8", "tanh5", "cnn", "cnn_bn", "resmlp_ln", "transformer", "gru", "mlp_gelu", "cnn_gn"),
    ),
    "detach": (
        _detach,
        ("mlp3", "mlp8", "tanh5", "cnn", "cnn_bn", "resmlp_ln", "transformer", "gru", "mlp_gelu", "cnn_gn"),
    ),
    "precision": (_precision, ("mlp3", "mlp8", "cnn", "transformer", "gru", "mlp_gelu", "cnn_gn")),
    "nan-log": (_nan("log"), ()),
    "valid-scaled": (
        _valid_scaled,
        ("mlp3", "mlp8", "tanh5", "cnn", "cnn_bn", "resmlp_ln", "gru", "cnn_gn", "mlp_gelu"),
    ),
    "softmax-twice": (_softmax_twice, ("mlp3", "mlp8", "cnn", "wine", "gru", "mlp_gelu")),
    "bn-statistics": (_bn_statistics, ("cnn_bn",)),
    "dropout-on": (_dropout_on, ("mlp3", "cnn", "resmlp_ln", "gru", "mlp_gelu")),
    "nan-divide": (_nan("divide"), ()),
    "nan-sqrt": (_nan("sqrt"), ()),
    "standing-still": (
        _standing_still,
        ("mlp3", "mlp8", "tanh5", "cnn", "cnn_bn", "resmlp_ln", "gru", "mlp_gelu", "cnn_gn"),
    ),
    "jump": (_jump, ("mlp3", "mlp8", "tanh5", "wine", "cnn", "gru", "mlp_gelu")),
}
HELD_OUT_FAMILIES = ("nan-divide", "nan-sqrt", "standing-still", "jump")
OUT_OF_SCOPE: dict[str, dict[str, Any]] = {
    "shuffled-labels": {"labels": "shuffled"},
    "noisy-labels": {"labels": "noisy"},
    "small-set": {"examples": 60, "epochs": 60, "batch_size": 16},
}
assert set(SHAPES) == {each.recipe.data for each in ARCHITECTURES.values()}
