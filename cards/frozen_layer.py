"""Three layers that stand still for three reasons, and one that learns."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from torch import Tensor, nn, optim

from cards.card import Card, Picture, Shown
from cards.marks import mark
from cards.read import found, last_loss, rms
from cards.training import fit


class Cut(nn.Module):
    """Passes values on, and no gradient back: as a stray ``.detach()`` does."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the values without their history."""
        return x.detach()


def partly_standing() -> nn.Sequential:
    """Return a network of which fc1 is cut off and fc2 is frozen."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, inputs in enumerate((784, 64, 64, 64), start=1):
        layers[f"fc{number}"], layers[f"relu{number}"] = nn.Linear(inputs, 64), nn.ReLU()
        if number == 1:
            layers["cut"] = Cut()
    layers["fc2"].requires_grad_(False)
    layers["head"] = nn.Linear(64, 10)
    return nn.Sequential(layers)


def all_but_fc3(model: nn.Module) -> optim.Optimizer:
    """Return an optimiser that was not given the parameters of fc3."""
    return optim.SGD([each for name, each in model.named_parameters() if not name.startswith("fc3.")], 0.1)


def make(folder: Path) -> Shown:
    """Train it."""
    run = fit(partly_standing, folder / "standing", optimizer=all_but_fc3, epochs=3)
    frozen, outside, cut = (found(run, symptom) for symptom in ("frozen", "not-in-optimizer", "no-gradient"))
    changed = {each: bool(rms(run, f"{each}.weight", "update").any()) for each in ("fc1", "fc2", "fc3", "fc4", "head")}
    gradients = {stream.name for stream in run.select(kind="weight_gradient")}
    figure = run.updates(figsize=(9.6, 3.9), title="Three layers stand still, two learn")
    (ax, *_) = figure.axes
    mark(ax, 1, (46, -4.85), (-40, 24))
    mark(ax, 2, (60, -3.2), (30, -22))
    return Shown(
        pictures=[Picture(figure, "How large the steps are beside the weights, for the five matrices of one network.")],
        numbers={"loss": f"{last_loss(run):.2f}"},
        claims={
            "the rule for frozen layers names the second": frozen is not None and frozen.layers == ("fc2",),
            "the rule for the optimiser names the third": outside is not None and outside.layers == ("fc3",),
            "the rule for gradients names the first": cut is not None and cut.layers == ("fc1",),
            "three matrices never change": not (changed["fc1"] or changed["fc2"] or changed["fc3"]),
            "two do": changed["fc4"] and changed["head"],
            "of these three only that which is outside of the optimiser has gradients": "fc3.weight" in gradients
            and not gradients & {"fc1.weight", "fc2.weight"},
        },
        run=run,
    )


CARD = Card(
    title="Frozen layer",
    summary="The steps of some layers are not small but exactly zero: they keep the random weights that they began with. There are three reasons, and the diagnosis tells them apart.",
    training="784, four times 64 with ReLU, 10, SGD at 0.1, batches of 128, three epochs of 4,000 digits. fc1 is cut off by a detach(), fc2 frozen, and fc3 was forgotten when the optimiser was made.",
    make=make,
    see="""
- **1** Three lines in the strip *no update*: every element of every step of fc1, fc2 and fc3 was zero.
- **2** The others take steps of a usual size. What is left to learn with is little: the loss ends at {loss}.
""",
    meaning="""
| | requires gradients | has gradients | what it is |
|---|---|---|---|
| fc1 | yes | no | [no-gradient](../diagnosis.md#no-gradient): the loss does not reach it |
| fc2 | no | no | [frozen](../diagnosis.md#frozen): `requires_grad=False` |
| fc3 | yes | yes | [not-in-optimizer](../diagnosis.md#not-in-optimizer) |

The chart of values does not show it: random layers look healthy.
""",
    look_alike="""
A [learning rate that is too low](learning_rate_too_low.md) gives small steps, lines far down, but not zero. A [dead ReLU](dead_relu.md)
has gradients that are zero. A layer that [starts late](late_start.md) has steps from the beginning.
""",
    remedy="""
Frozen: `requires_grad_(True)`, unless a pretrained part is kept. Forgotten: make the optimiser after the last layer, from
`model.parameters()`. Cut off: look for `.detach()`, `.item()`, `torch.no_grad()` behind the layer.
""",
    symptom="frozen",
    rule="A note, since it is mostly meant; the other two are problems, and come first here:",
)
