"""Everything that makes one training of the benchmark, and what was planted into it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

__all__ = ["Label", "Recipe", "Spec"]


@dataclass(frozen=True)
class Recipe:
    """A training as a set of knobs. Healthy variants, faults and remedies are all other settings of them.

    Attributes
    ----------
    data : {"digits", "mnist", "wine", "cancer", "diabetes"}
    inputs : {"standard", "unit", "raw"}
        Standardised by the training part, scaled to [0, 1], or as stored.
    valid_inputs : str
        As `inputs` for the validation alone, or "shifted", "dark" (half the range); "" is the same as in training.
    labels : {"true", "shuffled", "noisy"}
        Of the training part: all shuffled, or 40 % of them drawn at random.
    examples : int
        Size of the training part; 0 for all of it.
    imbalance : float
        Rows of the rarest class over those of the most frequent one, classes in between falling geometrically.
    width, depth : int
        Of the hidden layers, and their number.
    activation, norm : str
        Activation function of hidden layers; "", "batch", "layer" or "group".
    init : {"kaiming", "default"}
        For the activation function in use, or as PyTorch leaves it.
    bias : float
        Initial bias of hidden layers (below zero: a sparse ReLU layer).
    gain, output_gain : float
        Planted: factor on initial weights of hidden layers and of the output.
    constant : float or None
        Planted: every initial weight has this value.
    dead : (layer, share) or None
        Planted: that share of a layer's units start with a bias far below zero.
    shut_output : bool
        Planted: a ReLU behind the output, whose bias starts below zero.
    again : tuple of {"kaiming", "output"}
        Remedies: initialisations that come after what was planted.
    frozen, left_out : tuple of str
        Modules with requires_grad=False; modules whose parameters no optimiser is given.
    slow : tuple of str
        Modules in a parameter group of their own, with the learning rate times `slow_factor`.
    detach : str
        Child behind whose output the graph is cut.
    nan : (operation, child, batch) or None
        "log", "sqrt" or "divide" behind that child, of a statistic of each row, which is zero for one row of that batch.
    guarded : bool
        Whether the operation adds an epsilon.
    softmax : bool
        A softmax before the cross entropy, which has one.
    spike : (batch, batches, factor) or None
        The learning rate is that many times higher for some batches.
    jump : (batch, module, factor) or None
        The weights of a module are multiplied in the middle of the training.
    half : bool
        Gradients pass through float16.
    loss_factor : float
        What the loss is multiplied by before backward().
    loss_scaling : bool
        Under `half`, gradients are scaled up before the cast and down after it.
    valid_mode : {"eval", "train"}
        Mode of the model in validation.
    train_mode : {"train", "eval-after-first"}
        The second forgets model.train() after the first validation.
    """

    data: str = "digits"
    inputs: str = "standard"
    valid_inputs: str = ""
    labels: str = "true"
    examples: int = 0
    imbalance: float = 1.0
    width: int = 64
    depth: int = 2
    activation: str = "relu"
    norm: str = ""
    dropout: float = 0.0
    init: str = "kaiming"
    bias: float = 0.0
    gain: float = 1.0
    output_gain: float = 1.0
    constant: float | None = None
    dead: tuple[str, float] | None = None
    shut_output: bool = False
    again: tuple[str, ...] = ()
    optimizer: str = "adam"
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    clip: float = 0.0
    smoothing: float = 0.0
    batch_size: int = 64
    epochs: int = 12
    zero_grad: bool = True
    frozen: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()
    slow_factor: float = 1.0
    detach: str = ""
    nan: tuple[str, str, int] | None = None
    guarded: bool = False
    softmax: bool = False
    spike: tuple[int, int, float] | None = None
    jump: tuple[int, str, float] | None = None
    half: bool = False
    loss_factor: float = 1.0
    loss_scaling: bool = False
    bn_momentum: float = 0.1
    valid_mode: str = "eval"
    train_mode: str = "train"


@dataclass(frozen=True)
class Label:
    """What was planted (the first of the three axes of labels).

    Attributes
    ----------
    symptoms : tuple of str
        Keys of which any is the right name of the fault; () for healthy and out-of-scope trainings.
    layers : tuple of str
        Modules of which any is the right first layer; () where there is no such thing, and layers are not judged.
    onset : int
        First training batch at which the fault acts.
    repairable : bool
        False where what was planted is an event (weights that jump) that no other setting undoes.
    """

    symptoms: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    onset: int = 0
    repairable: bool = True

    def names(self, layer: str) -> bool:
        """Whether a layer that was named (a module or a parameter) is one of the right ones, or inside of one."""
        return any(layer == each or layer.startswith(f"{each}.") for each in self.layers)


@dataclass(frozen=True)
class Spec:
    """One training.

    Attributes
    ----------
    kind : {"healthy", "fault", "out-of-scope"}
        By construction; what it is by outcome is in its truth.
    family, strength : str
        Name of the healthy variant or the fault, and how strong it is.
    remedies : tuple of str
        Keys of the remedies that were applied, in order.
    """

    arch: str
    seed: int
    kind: Literal["healthy", "fault", "out-of-scope"] = "healthy"
    family: str = "base"
    strength: str = ""
    recipe: Recipe = field(default_factory=Recipe)
    label: Label = field(default_factory=Label)
    remedies: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Name of its folder: readable, and another one as soon as any knob is another (not the label's)."""
        words = [self.arch, self.family, self.strength, f"s{self.seed}", *self.remedies]
        content = {name: value for name, value in self.to_json().items() if name != "label"}
        digest = hashlib.sha1(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return "-".join(word for word in words if word) + "-" + digest[:6]

    def with_recipe(self, **changes: Any) -> Spec:
        """Return the spec with other knobs."""
        return replace(self, recipe=replace(self.recipe, **changes))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON's types; what has its default is left out of the recipe."""
        row: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        plain = json.loads(json.dumps(asdict(Recipe())))
        row["recipe"] = {name: value for name, value in row["recipe"].items() if value != plain[name]}
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Spec:
        """Return what :meth:`to_json` wrote."""
        given = {**row, "recipe": _made(Recipe, row["recipe"]), "label": _made(Label, row["label"])}
        spec: Spec = _made(cls, given)
        return spec


def _made(cls: Any, row: Mapping[str, Any]) -> Any:
    known = {each.name for each in fields(cls)}
    return cls(
        **{name: tuple(value) if isinstance(value, list) else value for name, value in row.items() if name in known}
    )
