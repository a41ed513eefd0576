"""The callback records exactly the batches of a Trainer, whatever else it runs the model for."""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import colordim
from colordim.errors import DependencyError
from colordim.huggingface import ColorDimCallback

TOKENS, WIDTH = 7, 8
DENSE, HEAD = "bert.encoder.layer.0.intermediate.dense", "classifier"
Row = dict[str, Any]


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """Keep tiny models on one thread, and the many collections of a Trainer away from all that was imported."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(before)


def bert() -> Any:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=20, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=16, num_labels=2, problem_type="single_label_classification",
        )
    )  # fmt: skip


def rows(number: int) -> list[Row]:
    generator = torch.Generator().manual_seed(number)
    tokens = torch.randint(1, 20, (number, TOKENS), generator=generator)
    return [{"input_ids": each, "labels": int(each[0]) % 2} for each in tokens]


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "num_train_epochs": 1, "report_to": "none",
        "use_cpu": True, "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True, "seed": 1,
    }  # fmt: skip
    return TrainingArguments(str(folder / "out"), **settings | options)


def trainer(
    folder: Path, callback: Any = None, model: Any = None, kind: type[Trainer] = Trainer, **options: Any
) -> Trainer:
    return kind(
        model or bert(),
        arguments(folder, **options),
        train_dataset=rows(10),
        eval_dataset=rows(6),
        callbacks=[] if callback is None else [callback],
    )


def sizes(run: colordim.Run, phase: Any = "train", layer: str = HEAD) -> list[int]:
    return [int(size) for size in run.moments(layer, phase)["size"]]


class Counted(Trainer):  # type: ignore[misc]
    """Counts by hooks of its own what each leaf returns in each batch: number of values, and their sum in float64."""

    seen: list[tuple[str, dict[str, tuple[int, float]]]]

    def listen(self) -> None:
        self.seen = []
        for name, module in self.model.named_modules():
            if not list(module.children()):
                module.register_forward_hook(lambda _, __, output, name=name: self.add(name, output))

    def add(self, name: str, output: Tensor) -> None:
        if self.seen:
            size, total = self.seen[-1][1].get(name, (0, 0.0))
            self.seen[-1][1][name] = size + output.numel(), total + output.detach().double().sum().item()

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        self.seen.append(("train", {}))
        return super().training_step(*args, **kwargs)

    def prediction_step(self, *args: Any, **kwargs: Any) -> Any:
        self.seen.append(("valid", {}))
        return super().prediction_step(*args, **kwargs)


@pytest.mark.parametrize(
    ("options", "train", "valid"),
    [
        ({}, 3, 0),
        ({"num_train_epochs": 2, "eval_strategy": "epoch"}, 6, 4),
        ({"num_train_epochs": 2, "gradient_accumulation_steps": 2, "eval_strategy": "steps", "eval_steps": 1}, 6, 8),
        ({"eval_on_start": True, "eval_strategy": "epoch"}, 3, 4),
        ({"max_steps": 2}, 2, 0),
    ],
)
def test_every_value_of_exactly_the_true_batches(
    tmp_path: Path, options: dict[str, Any], train: int, valid: int
) -> None:
    callback = ColorDimCallback(folder=tmp_path / "run")
    fit: Any = trainer(tmp_path, callback, kind=Counted, **options)
    fit.listen()
    fit.train()
    run = callback.run
    assert (run.length("train"), run.length("valid")) == (train, valid)
    assert [str(phase) for phase in run.batches["phase"]] == [phase for phase, _ in fit.seen]
    layers = set(fit.seen[0][1])
    assert {stream.name for stream in run.streams} == layers
    for phase in ("train", "valid"):
        batches = [found for each, found in fit.seen if each == phase]
        for layer in layers if batches else ():
            moments = run.moments(layer, phase)
            assert moments["size"].tolist() == [batch[layer][0] for batch in batches]
            np.testing.assert_allclose(moments["sum"], [batch[layer][1] for batch in batches], rtol=1e-6, atol=1e-6)
    assert callback.recording.notices == ()
    assert run.ended == "stopped"


def test_epochs_steps_losses_and_rates_are_those_of_the_training(tmp_path: Path) -> None:
    callback = ColorDimCallback(folder=tmp_path / "run")
    fit = trainer(
        tmp_path, callback, num_train_epochs=2, gradient_accumulation_steps=2, eval_strategy="steps", eval_steps=1,
        eval_on_start=True,
    )  # fmt: skip
    fit.train()
    batches = callback.run.batches
    # Of ten rows in fours, two batches are a step, and the third is one; each is followed by two batches of validation.
    assert "".join(str(phase)[0] for phase in batches["phase"]) == "vv" + 2 * "ttvvtvv"
    assert batches["epoch"].tolist() == [0] * 9 + [1] * 7
    assert batches["step"].tolist() == [0, 0, *[0, 1, 1, 1, 2, 2, 2], *[2, 3, 3, 3, 4, 4, 4]]
    logged: dict[str, list[float]] = {name: [] for name in ("loss", "eval_loss", "grad_norm")}
    for entry in fit.state.log_history:
        for name in logged:
            logged[name] += [entry[name]] if name in entry else []

    def numbers(name: str) -> dict[int, float]:
        return {i: float(value) for i, value in enumerate(batches[name]) if not np.isnan(value)}

    assert numbers("loss") == dict(zip((3, 6, 10, 13), logged["loss"], strict=True))
    assert numbers("unclipped_grad_norm") == dict(zip((3, 6, 10, 13), logged["grad_norm"], strict=True))
    assert numbers("eval_loss") == dict(zip((1, 5, 8, 12, 15), logged["eval_loss"], strict=True))
    assert list(numbers("lr").values()) == pytest.approx([5e-5 * (1 - step / 4) for step in (0, 0, 1, 2, 2, 3)])
    assert set(batches) & {"learning_rate", "eval_runtime", "train_loss", "total_flos"} == set()


@pytest.mark.pitfall("generation")
@pytest.mark.parametrize("generation", [False, True])
def test_text_that_is_generated_is_no_batch(tmp_path: Path, generation: bool) -> None:
    torch.manual_seed(0)
    model: Any = BartForConditionalGeneration(
        BartConfig(
            vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=32,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2,
        )
    )  # fmt: skip
    model.generation_config.max_length = 6
    model.generation_config.min_length = 6
    data = [{"input_ids": row["input_ids"], "labels": row["input_ids"][:5]} for row in rows(6)]
    args = Seq2SeqTrainingArguments(
        str(tmp_path / "out"), per_device_train_batch_size=4, per_device_eval_batch_size=4, num_train_epochs=1,
        report_to="none", use_cpu=True, save_strategy="no", eval_strategy="steps", eval_steps=1, disable_tqdm=True,
        predict_with_generate=True, logging_steps=1,
    )  # fmt: skip
    callback = ColorDimCallback(folder=tmp_path / "run", generation=generation)
    Seq2SeqTrainer(
        model, args, train_dataset=data, eval_dataset=data, callbacks=[callback],
        compute_metrics=lambda prediction: {"tokens": float(prediction.predictions.shape[1])},
    ).train()  # fmt: skip
    run = callback.run
    assert (run.length("train"), run.length("valid")) == (2, 4)
    # The head turns 8 numbers of each token into 20; generation calls it once for each of five tokens.
    generated = [20 * each * 5 for each in (4, 2, 4, 2)] if generation else [0] * 4
    assert sizes(run, "train", "lm_head") == [20 * 5 * each for each in (4, 2)]
    assert sizes(run, "valid", "lm_head") == [
        20 * 5 * each + more for each, more in zip((4, 2, 4, 2), generated, strict=True)
    ]
    once = 2 if generation else 1
    assert sizes(run, "valid", "model.encoder.layers.0.fc1") == [once * 16 * TOKENS * each for each in (4, 2, 4, 2)]
    assert [value for value in run.batches["eval_tokens"] if value == value] == [6.0, 6.0]
    assert callback.recording.notices == ()


def test_generation_within_a_step_is_left_out(tmp_path: Path) -> None:
    class Samples(Trainer):  # type: ignore[misc]
        def training_step(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(model, *args, **kwargs)
            generating(model)
            return loss

    callback = ColorDimCallback(folder=tmp_path / "run")
    trainer(tmp_path, callback, kind=Samples).train()
    assert sizes(callback.run) == [8, 8, 4]


def generating(model: nn.Module) -> None:
    """Call a model as the library's ``generate()`` would."""
    from transformers.generation import utils

    code = "def generate(model, torch):\n with torch.no_grad():\n  model(input_ids=torch.ones(1, 1, dtype=torch.int64))"
    names: dict[str, Any] = {"__name__": utils.__name__}
    exec(code, names)
    names["generate"](model, torch)


def test_a_callback_that_calls_the_model_between_steps_adds_nothing(tmp_path: Path) -> None:
    class Looks(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            with torch.no_grad():
                model(input_ids=torch.ones(1, 3, dtype=torch.int64))

    callback = ColorDimCallback(folder=tmp_path / "run")
    fit = trainer(tmp_path, callback, eval_strategy="steps", eval_steps=1)
    fit.add_callback(Looks())
    fit.train()
    assert sizes(callback.run) == [8, 8, 4]
    assert sizes(callback.run, "valid") == [8, 4] * 3


@pytest.mark.pitfall("evaluation outside of training")
def test_evaluation_outside_of_training_is_not_recorded(tmp_path: Path) -> None:
    callback = ColorDimCallback(folder=tmp_path / "run")
    fit = trainer(tmp_path, callback)
    fit.evaluate()
    fit.train()
    fit.evaluate()
    fit.predict(rows(5))
    assert (callback.run.length("train"), callback.run.length("valid")) == (3, 0)
    assert not any(module._forward_hooks for module in fit.model.modules())


class Crashes(Trainer):  # type: ignore[misc]
    """Fails in the batch of a number, as often as it is told to."""

    at, error = 1, RuntimeError("what users' code raises")
    calls = 0

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.calls += 1
        if self.calls == self.at + 1:
            raise self.error
        return loss


def test_after_a_crash_only_training_is_recorded_again(tmp_path: Path) -> None:
    callback = ColorDimCallback(folder=tmp_path / "run")
    fit = trainer(tmp_path, callback, kind=Crashes)
    with pytest.raises(RuntimeError, match="users' code"):
        fit.train()
    fit.evaluate()
    fit.model(input_ids=torch.ones(2, 3, dtype=torch.int64))
    assert sizes(callback.run) == [8]  # the batch that failed was none
    fit.train()
    run = callback.run
    assert sizes(run) == [8, 8, 8, 4]
    assert run.length("valid") == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("run")] == ["run"]


def test_after_a_crash_in_metrics_an_evaluation_is_not_recorded(tmp_path: Path) -> None:
    callback = ColorDimCallback(folder=tmp_path / "run")
    fit = trainer(tmp_path, callback, eval_strategy="steps", eval_steps=1)

    def fails(_: Any) -> dict[str, float]:
        raise ValueError("no such metric")

    fit.compute_metrics = fails
    with pytest.raises(ValueError, match="no such metric"):
        fit.train()
    fit.compute_metrics = None
    fit.evaluate()
    assert (sizes(callback.run), sizes(callback.run, "valid")) == ([8], [8, 4])
    fit.train()
    assert (sizes(callback.run), sizes(callback.run, "valid")) == ([8, 8, 8, 4], [8, 4] * 4)


@pytest.mark.pitfall("restarts for want of memory")
def test_attempts_that_ran_out_of_memory_are_taken_back(tmp_path: Path) -> None:
    class Small(Trainer):  # type: ignore[misc]
        calls = 0

        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if len(inputs["labels"]) > 3 and self.calls > 1:
                raise RuntimeError("CUDA out of memory.")
            return super().training_step(model, inputs, *args, **kwargs)

    callback = ColorDimCallback(folder=tmp_path / "run", kinds="all")
    fit = trainer(tmp_path, callback, kind=Small, auto_find_batch_size=True, per_device_train_batch_size=5)
    fit.train()  # 5 rows at a time, once; 4 rows, not at all; then 3, 3, 3, 1
    run = callback.run
    assert sizes(run) == [6, 6, 6, 2]
    assert run.batches["epoch"].tolist() == [0] * 4
    assert run.batches["step"].tolist() == [1, 2, 3, 4]
    assert run.ended == "stopped"
    assert sizes(colordim.open(tmp_path / "run" / "cut-0001"))[:1] == [10]  # kept aside


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing:FutureWarning")  # its newer name is not in every version 5
@pytest.mark.parametrize(
    ("options", "plain"),
    [
        ({"gradient_accumulation_steps": 2, "eval_strategy": "steps", "eval_steps": 1}, None),
        ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}, None),
        ({"bf16": True}, None),
        (
            {"torch_compile": True, "torch_compile_backend": "eager", "dataloader_drop_last": True},
            {"dataloader_drop_last": True},
        ),
    ],
    ids=["accumulation", "checkpointing", "bf16", "compile"],
)
def test_weights_are_bit_for_bit_the_same(
    tmp_path: Path, options: dict[str, Any], plain: dict[str, Any] | None
) -> None:
    callback = ColorDimCallback(folder=tmp_path / "run", kinds="all")
    expected = trainer(tmp_path, **options if plain is None else plain)
    expected.train()
    found = trainer(tmp_path, callback, **options)
    found.train()
    weights = found.model.state_dict()
    assert expected.model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in expected.model.state_dict().items())
    run, batches = callback.run, (4, 4) if plain else (4, 4, 2)
    assert sizes(run) == [2 * each for each in batches]
    assert sizes(run, layer=DENSE) == [16 * TOKENS * each for each in batches]
    gradients = run.moments(run.stream(HEAD, "gradient"))
    assert gradients["size"].tolist() == [2 * each for each in batches]
    assert set(gradients["calls"]) == {1}
    steps = [0, 1, 1] if "gradient_accumulation_steps" in options else [1] * len(batches)
    for kind in ("weight", "weight_gradient", "update"):
        assert run.moments(run.stream("classifier.weight", kind))["size"].tolist() == [
            2 * WIDTH * step for step in steps
        ]
    assert callback.recording.notices == ()


def test_a_run_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    """The first training is killed after its last checkpoint; a new process resumes it."""
    settings: dict[str, Any] = {
        "num_train_epochs": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "eval_strategy": "epoch",
    }
    whole = ColorDimCallback(folder=tmp_path / "whole")
    trainer(tmp_path / "a", whole, **settings).train()

    first = ColorDimCallback(folder=tmp_path / "run")
    fit: Any = trainer(tmp_path / "b", first, kind=Crashes, **settings)
    fit.at = 4
    with pytest.raises(RuntimeError, match="users' code"):
        fit.train()
    sidecar = tmp_path / "b" / "out" / "checkpoint-4" / "colordim.json"
    assert json.loads(sidecar.read_text())["train"] == 4
    second = ColorDimCallback(folder=tmp_path / "run")
    again = trainer(tmp_path / "b", second, restore_callback_states_from_checkpoint=True, **settings)
    again.train(resume_from_checkpoint=True)
    run, expected = second.run, whole.run
    assert second in again.callback_handler.callbacks
    assert run.path == str(tmp_path / "run")
    for phase in ("train", "valid"):
        for layer in (HEAD, DENSE):
            np.testing.assert_array_equal(run.counts(layer, phase), expected.counts(layer, phase))
    for name in ("epoch", "step", "phase", "index", "loss", "eval_loss"):
        np.testing.assert_array_equal(run.batches[name], expected.batches[name])

    elsewhere = ColorDimCallback(folder=tmp_path / "other")
    trainer(tmp_path / "c", elsewhere, **settings).train(
        resume_from_checkpoint=str(sidecar.parent.parent / "checkpoint-2")
    )
    assert elsewhere.run.path == str(tmp_path / "run"), "the checkpoint says which run it is"
    np.testing.assert_array_equal(elsewhere.run.batches["step"], expected.batches["step"])


def test_a_checkpoint_without_a_recording_begins_a_run(tmp_path: Path) -> None:
    trainer(tmp_path, save_strategy="steps", save_steps=2).train()
    callback = ColorDimCallback(folder=tmp_path / "run")
    trainer(tmp_path, callback, num_train_epochs=2).train(resume_from_checkpoint=True)
    assert sizes(callback.run) == [8, 8, 4]


def test_two_trainings_are_one_run_and_two_trials_are_two(tmp_path: Path) -> None:
    callback = ColorDimCallback(folder=tmp_path / "run")
    fit = trainer(tmp_path, callback)
    fit.train()
    fit.train()
    assert sizes(callback.run) == [8, 8, 4] * 2
    assert callback.run.batches["epoch"].tolist() == [0] * 3 + [1] * 3
    trials = ColorDimCallback(folder=tmp_path / "trial")
    fit = trainer(tmp_path, trials)
    for number in (1, 2):
        fit.train(trial={"number": number})
        assert sizes(trials.run) == [8, 8, 4]
    assert sorted(path.name for path in tmp_path.glob("trial*")) == ["trial", "trial-2"]


def test_options_are_those_of_record(tmp_path: Path) -> None:
    callback = ColorDimCallback(
        folder=tmp_path / "run", layers=["classifier", "bert.encoder.*"], every=2, range={HEAD: (-1, 1)}, bins=7,
        facets={HEAD: "class"}, name="a name",
    )  # fmt: skip
    trainer(tmp_path, callback, eval_strategy="epoch").train()
    run = callback.run
    assert run.name == "a name"
    assert run.counts(HEAD).shape == (2, 7)
    assert run.batches["recorded"].tolist() == [True, False, True, True, False]
    assert {"classifier[0]", "classifier[1]", DENSE} <= {stream.name for stream in run.streams}
    assert not any(stream.name.startswith("bert.embeddings") for stream in run.streams)


def test_the_scale_of_losses_is_that_of_the_trainer(tmp_path: Path) -> None:
    """Accelerate keeps the scaler at the optimiser that it wraps."""
    callback = ColorDimCallback(folder=tmp_path / "run", kinds=("activation", "gradient"))

    class Scaled(Trainer):  # type: ignore[misc]
        def create_accelerator_and_postprocess(self) -> None:
            super().create_accelerator_and_postprocess()
            self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    plain = ColorDimCallback(folder=tmp_path / "plain", kinds=("activation", "gradient"))
    trainer(tmp_path, plain, max_steps=1).train()
    trainer(tmp_path, callback, max_steps=1, kind=Scaled).train()
    found, expected = (each.run.moments(each.run.stream(HEAD, "gradient"))["sum_sq"] for each in (callback, plain))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_without_transformers_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in ("colordim.huggingface", "colordim.integrations.huggingface"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        DependencyError,
        match=r'^colordim.huggingface needs .*: pip install "colordim\[huggingface\]".\nMore: colordim docs huggingface$',
    ):
        importlib.import_module("colordim.huggingface")


DISTRIBUTED = """
import json, os, sys, torch
torch.set_num_threads(1)
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_huggingface import ColorDimCallback, Counted, trainer

folder = Path({folder!r})

def train(rank):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    torch.distributed.init_process_group("gloo", f"file://{{folder}}/store", rank=rank, world_size=2)
    callback = ColorDimCallback(folder=folder / "run", kinds=("activation", "weight"))
    fit = trainer(folder, callback, kind=Counted, ddp_backend="gloo", eval_strategy="epoch", save_strategy="epoch")
    fit.listen()
    fit.train()
    (folder / f"seen{{rank}}.json").write_text(json.dumps(fit.seen))
    torch.distributed.destroy_process_group()

torch.multiprocessing.start_processes(train, nprocs=2, start_method="fork")
"""


@pytest.mark.pitfall("Trainer on several ranks")
def test_two_ranks_are_one_run(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(DISTRIBUTED.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    source = str(Path(colordim.__file__).parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([source, *sys.path])}
    result = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr[-3000:]
    run = colordim.open(tmp_path / "run")
    assert run.problems == ()
    seen = [json.loads((tmp_path / f"seen{rank}.json").read_text()) for rank in (0, 1)]
    assert [phase for phase, _ in seen[0]] == ["train", "train", "valid"]
    assert [str(phase) for phase in run.batches["phase"]] == ["train", "train", "valid"]
    assert run.batches["ranks"].tolist() == [2, 2, 2]
    for phase in ("train", "valid"):
        for layer in (DENSE, HEAD):
            batches = [(a[layer], b[layer]) for (which, a), (_, b) in zip(*seen, strict=True) if which == phase]
            moments = run.moments(layer, phase)
            assert moments["size"].tolist() == [a[0] + b[0] for a, b in batches]
            np.testing.assert_allclose(moments["sum"], [a[1] + b[1] for a, b in batches], rtol=1e-6)
    # Weights are the same on both ranks, and count once.
    assert run.moments(run.stream("classifier.weight", "weight"))["size"].tolist() == [2 * WIDTH] * 2
    state = json.loads((tmp_path / "out" / "checkpoint-2" / "colordim.json").read_text())
    assert (state["train"], state["valid"]) == (2, 1)


def test_a_finding_stops_the_training_if_it_may(tmp_path: Path, stops_after: Callable[[int], None]) -> None:
    stops_after(2)
    for on_finding, batches in (("stop", 2), ("log", 3)):
        callback = ColorDimCallback(folder=tmp_path / str(batches), on_finding=on_finding)
        trainer(tmp_path, callback).train()
        assert callback.run.length("train") == batches
        assert callback.run.ended == "stopped"
