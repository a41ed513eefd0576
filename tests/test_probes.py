"""The recipe of docs/probes.md: it is run as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

import colordim

RECIPE = Path(__file__).parents[1] / "docs" / "probes.md"
TOKENS = torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([[1] * 7, [0] * 3 + [1] * 4])


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    code = re.findall(r"```python\n(.*?)```", RECIPE.read_text("utf-8"), re.DOTALL)
    assert len(code) == 1
    exec(compile(code[0], str(RECIPE), "exec"), {})


def llama(attention: str) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=16, attn_implementation=attention,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    for layer in model.model.layers:  # as large as where it diverges
        torch.nn.init.normal_(layer.self_attn.q_proj.weight)
        torch.nn.init.normal_(layer.self_attn.k_proj.weight)
    return model


def reference() -> list[Tensor]:
    """Return the largest logits of each layer, shape ``[batch, heads]``, from the queries and keys of the plain model."""
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    model, found = llama("eager").double(), []
    seen: dict[Any, dict[str, Tensor]] = {}
    for layer in model.model.layers:
        for name in ("q_proj", "k_proj"):

            def keep(_: Any, __: Any, output: Tensor, layer: Any = layer, name: str = name) -> None:
                seen.setdefault(layer, {})[name] = output.detach()

            getattr(layer.self_attn, name).register_forward_hook(keep)
    model(TOKENS, attention_mask=LENGTHS)
    allowed = torch.ones(7, 7).tril().bool() & LENGTHS[:, None, None, :].bool()
    cos, sin = model.model.rotary_emb(torch.zeros(1, dtype=torch.float64), torch.arange(7)[None])
    for each in seen.values():
        q, k = (each[name].view(2, 7, -1, 4).transpose(1, 2) for name in ("q_proj", "k_proj"))
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        logits = torch.einsum("nhqd,nhkd->nhqk", q, k.repeat_interleave(2, dim=1)) / 2  # sqrt of 4 dimensions
        found.append(torch.where(allowed, logits, -torch.inf).amax(dim=(-2, -1)))
    return found


def test_the_largest_logit_of_each_head_is_counted(tmp_path: Path) -> None:
    model, expected = llama("observed"), reference()
    plain = llama("eager")(TOKENS, attention_mask=LENGTHS).logits
    with colordim.record(model, folder=tmp_path / "r") as rec:
        assert torch.equal(model(TOKENS, attention_mask=LENGTHS).logits, plain)
    for layer in range(2):
        moments = rec.run.moments(f"layers.{layer}.max_logit")
        assert moments["size"].tolist() == [2 * 4]
        assert moments["max"][0] == pytest.approx(expected[layer].max().item(), rel=1e-4)
        assert moments["min"][0] == pytest.approx(expected[layer].min().item(), rel=1e-4)
        assert moments["sum"][0] == pytest.approx(expected[layer].sum().item(), rel=1e-4)


def test_checkpointed_layers_are_counted_once(tmp_path: Path) -> None:
    model = llama("observed")
    model.activation_checkpointing_enable()
    model.train()
    with colordim.record(model, folder=tmp_path / "r") as rec, rec.batch():
        model(TOKENS, labels=TOKENS, use_cache=False).loss.backward()
    assert rec.run.moments("layers.0.max_logit")["calls"].tolist() == [1]
    assert rec.run.moments("model.layers.0.mlp.act_fn")["calls"].tolist() == [1]


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_is_observed_in_a_checkpoint_is_counted_once_and_in_hooks_of_gradients_always(
    tmp_path: Path, reentrant: bool
) -> None:
    def inner(x: Tensor) -> Tensor:
        y = colordim.observe("inside", (x @ x.T).tanh())
        if y.requires_grad:
            y.register_hook(lambda gradient: colordim.observe("gradient", gradient))
        return y.exp()

    class Checkpointed(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = checkpoint(inner, super().forward(x), use_reentrant=reentrant)
            return y

    model = nn.Sequential(Checkpointed(3, 3))
    with colordim.record(model, folder=tmp_path / "r") as rec, rec.batch():
        model(torch.randn(5, 3)).sum().backward()
    assert {name: rec.run.moments(name)["calls"].tolist() for name in ("inside", "gradient")} == {
        "inside": [1],
        "gradient": [1],
    }


def test_without_a_recording_nothing_is_counted_and_nothing_changes() -> None:
    assert torch.equal(llama("observed")(TOKENS).logits, llama("eager")(TOKENS).logits)


def test_activations_follow_the_gate_of_the_feed_forward_part(tmp_path: Path) -> None:
    model = llama("sdpa")
    with colordim.record(model, folder=tmp_path / "r") as rec:
        model(TOKENS)
    followers = rec.run.facts["followers"]
    assert followers["model.layers.0.mlp.gate_proj"]["name"] == "model.layers.0.mlp.act_fn"
    assert followers["model.layers.0.mlp.up_proj"] is None
    assert not any("max_logit" in stream.name for stream in rec.run.streams)
