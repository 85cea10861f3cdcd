"""An adapter learns what it is shown, leaves with all that serving needs, and does not depend on how a batch is cut."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.recipes.lora import LoraSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import TrainSettings
from services.chassis.executor.child import Stopping, UserFault
from services.language_models.chat_format.chat import Chat, Tokens
from services.trainer.engine.schedule import learning_rate
from services.trainer.engine.supervision import Supervision
from services.trainer.engine.trained import NoGradient, TrainedState
from services.trainer.modelling.adapter import load_for_inference, new_adapter
from services.trainer.modelling.base import load_base
from services.trainer.modelling.likelihood import log_probabilities, pad
from services.trainer.steps.train import train
from tests.trainer import Reports, context_of, lines_of, stop_after

CPU = torch.device("cpu")


def settings(base: Path, **changes: Any) -> TrainSettings:
    optimiser = OptimiserSettings(learning_rate=3e-2, steps=8, batch_size=6, **changes.pop("optimiser", {}))
    training = {"precision": "fp32", "max_length": 96, "checkpoint_steps": 4, "optimiser": optimiser, **changes}
    return TrainSettings(base_model=str(base), training=TrainingSettings.model_validate(training))


def run(home: Path, base: Path, data: ArtifactRef, *, memory_failures: int = 0, **changes: Any) -> StepResult:
    return train(context_of(home, settings(base, **changes), {"dataset": data}, memory_failures=memory_failures))


def losses(result: StepResult) -> list[float]:
    return [point["loss"] for point in lines_of(result.outputs["adapter"], "curve.jsonl")]


def test_the_loss_falls_and_the_curve_tells_it(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    context = context_of(tmp_path, settings(base), {"dataset": dataset})
    result = train(context)
    curve = lines_of(result.outputs["adapter"], "curve.jsonl")
    assert [point["step"] for point in curve] == list(range(1, 9))
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]
    assert curve[7]["validation_loss"] < curve[3]["validation_loss"]
    assert result.metrics["loss"] == pytest.approx(curve[-1]["loss"])
    reports: Any = context._channel
    assert isinstance(reports, Reports)
    assert reports.progress[0].of == 8


def test_every_step_has_the_rate_of_the_schedule_and_none_is_zero(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    optimiser = settings(base).training.optimiser  # type: ignore[union-attr]
    curve = lines_of(run(tmp_path, base, dataset).outputs["adapter"], "curve.jsonl")
    rates = [point["learning_rate"] for point in curve]
    assert rates == pytest.approx([learning_rate(optimiser, step, 8) for step in range(8)])
    assert min(rates) > 0


def test_a_tokenizer_without_a_pad_token_leaves_as_it_came(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    padless = tmp_path / "padless"
    shutil.copytree(base, padless)
    configuration = json.loads((padless / "tokenizer_config.json").read_text())
    del configuration["pad_token"]
    (padless / "tokenizer_config.json").write_text(json.dumps(configuration))
    result = run(tmp_path, padless, dataset)
    assert "pad_token" not in json.loads((Path(result.outputs["adapter"].uri) / "tokenizer_config.json").read_text())


def test_a_pad_token_without_an_embedding_is_not_used(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    tokenizer = Chat(folder).tokenizer
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(str(folder))
    assert losses(run(tmp_path, folder, dataset)) == losses(run(tmp_path, base, dataset)), "what is masked does not count"


def test_the_adapter_carries_all_that_serving_and_audit_need(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    result = run(tmp_path, base, dataset, lora=LoraSettings(rank=4, alpha=8))
    folder = Path(result.outputs["adapter"].uri)
    assert Chat(folder).template_sha256 == Chat(base).template_sha256 == result.facts["chat_template_sha256"]
    record = json.loads((folder / "training.json").read_text())
    assert record["inputs"] == {"dataset": dataset.sha256}
    assert record["settings"]["lora"] == LoraSettings(rank=4, alpha=8).model_dump(mode="json")
    assert record["base_model_sha256"] == result.facts["base_model_sha256"]
    assert record["libraries"]["torch"] == torch.__version__.partition("+")[0]
    assert result.metrics["base_parameters"] == sum(
        weight.numel() for weight in load_base(base, torch.float32, CPU).parameters()
    )
    assert (result.metrics["tokens_read"] or 0) > (result.metrics["examples"] or 0)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    assert set(config["target_modules"]) == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip


def test_the_merged_model_computes_what_peft_computes(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    from peft import PeftModel

    folder = Path(run(tmp_path, base, dataset).outputs["adapter"].uri)
    ids = torch.tensor([[5, 6, 7, 8]])
    merged = load_for_inference(base, folder, torch.float32, CPU)
    theirs = PeftModel.from_pretrained(load_base(base, torch.float32, CPU), folder).eval()
    with torch.inference_mode():
        assert torch.allclose(merged(ids).logits, theirs(ids).logits, atol=1e-5)
        assert not torch.allclose(merged(ids).logits, load_base(base, torch.float32, CPU)(ids).logits, atol=1e-3)


def test_equal_runs_give_equal_bytes(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    first, second = run(tmp_path / "1", base, dataset), run(tmp_path / "2", base, dataset)
    assert first.outputs["adapter"].sha256 == second.outputs["adapter"].sha256
    assert run(tmp_path / "3", base, dataset, seed=1).outputs["adapter"].sha256 != first.outputs["adapter"].sha256


def test_less_memory_changes_the_cut_and_not_the_learning(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    whole = losses(run(tmp_path / "1", base, dataset))
    assert losses(run(tmp_path / "2", base, dataset, memory_failures=2)) == pytest.approx(whole, rel=1e-4)


def test_activation_checkpointing_changes_memory_and_not_the_learning(
    tmp_path: Path, base: Path, dataset: ArtifactRef
) -> None:
    plain = losses(run(tmp_path / "1", base, dataset))
    saving = losses(run(tmp_path / "2", base, dataset, optimiser={"activation_checkpointing": True}))
    assert saving == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("changes", [{"optimiser": {"name": "adafactor"}}, {"neftune_alpha": 5.0}])
def test_a_run_that_is_stopped_makes_the_same_adapter_with_every_option(
    tmp_path: Path, base: Path, dataset: ArtifactRef, changes: dict[str, Any]
) -> None:
    whole = run(tmp_path / "whole", base, dataset, **changes)
    assert losses(whole)[1:] != losses(run(tmp_path / "plain", base, dataset))[1:]
    context = context_of(tmp_path, settings(base, **changes), {"dataset": dataset})
    stop_after(context, 5)
    with pytest.raises(Stopping):
        train(context)
    resumed = run(tmp_path, base, dataset, **changes)
    assert losses(resumed) == losses(whole)
    assert resumed.outputs["adapter"].sha256 == whole.outputs["adapter"].sha256


def test_only_the_answer_is_learnt(base: Path) -> None:
    model = load_base(base, torch.float32, CPU)
    rows = [Tokens.of([5, 6, 7, 8], [9, 10]), Tokens.of([11], [12, 13, 14])]
    values, owners = log_probabilities(model, pad(rows, 0, CPU))
    assert owners.tolist() == [0, 0, 1, 1, 1]
    for number, row in enumerate(rows):
        ids = torch.tensor([[*row.prompt, *row.completion]])
        labels = ids.clone()
        labels[0, : len(row.prompt)] = -100
        assert -values[owners == number].mean().item() == pytest.approx(model(ids, labels=labels).loss.item(), rel=1e-5)


def test_training_that_diverges_is_the_learning_rates_fault(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    wild = {"weight_decay": 1.0, "warmup_ratio": 0.0, "max_grad_norm": 1000.0, "schedule": "constant"}
    training = settings(base, optimiser=wild, lora=LoraSettings(rank=1, alpha=4096))
    assert training.training is not None
    rate = training.training.optimiser.model_copy(update={"learning_rate": 1.0, "steps": 40})
    training = training.model_copy(update={"training": training.training.model_copy(update={"optimiser": rate})})
    model_breaks = context_of(tmp_path, training, {"dataset": dataset})
    with pytest.raises(UserFault) as raised:
        train(model_breaks)
    assert raised.value.reasons[0].field == "training.optimiser.learning_rate"


@pytest.mark.parametrize(
    ("broken", "at", "kept"), [("loss", 6, 4), ("weights", 4, 0), ("weights", 8, 4), ("validation", 8, 4)]
)
def test_a_run_that_diverges_goes_back_to_its_last_good_checkpoint_and_once_more_at_half_the_rate(
    tmp_path: Path, base: Path, dataset: ArtifactRef, monkeypatch: pytest.MonkeyPatch, broken: str, at: int, kept: int
) -> None:
    never_broken = run(tmp_path / "1", base, dataset)
    expected = lines_of(never_broken.outputs["adapter"], "curve.jsonl")
    assert "rate_factor" not in never_broken.metrics
    on_log = Supervision.on_log

    def once_not_a_number(self: Any, args: Any, state: Any, control: Any, logs: Any, **more: Any) -> None:
        if "loss" in logs and len(self._run.curve) == at - 1 and self._run.rate_factor == 1.0:
            match broken:
                case "loss":
                    logs = logs | {"loss": math.nan}
                case "weights":
                    next(iter(self._state._weights.values())).data.fill_(math.inf)
                case "validation":
                    self._validate = lambda: {"validation_loss": math.nan}
        on_log(self, args, state, control, logs, **more)

    monkeypatch.setattr(Supervision, "on_log", once_not_a_number)
    result = run(tmp_path / "2", base, dataset)
    curve = lines_of(result.outputs["adapter"], "curve.jsonl")
    assert curve[:kept] == expected[:kept], "steps before the checkpoint"
    rates = [point["learning_rate"] for point in curve]
    assert rates == pytest.approx([point["learning_rate"] * (1 if point["step"] <= kept else 0.5) for point in expected])
    assert result.metrics["rate_factor"] == 0.5


def test_an_adapter_without_a_gradient_is_an_error(base: Path) -> None:
    adapted = new_adapter(load_base(base, torch.float32, CPU), LoraSettings(), seed=0)
    trained = TrainedState(adapted, None)
    with pytest.raises(NoGradient) as raised:
        trained.check_gradients()
    assert raised.value.layers[0] == "model.layers.0.self_attn.q_proj", "named as in lora.targets"
    for weight in adapted.parameters():
        weight.requires_grad_(False)
    with pytest.raises(RuntimeError, match="no trainable parameters"):
        TrainedState(adapted, None)


def test_a_layer_without_a_gradient_is_a_fault_of_the_targets_and_is_not_retried(
    tmp_path: Path, base: Path, dataset: ArtifactRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = TrainedState.check_gradients

    def unused(self: TrainedState, **asked: Any) -> None:
        next(iter(self._weights.values())).grad = None
        check(self, **asked)

    monkeypatch.setattr(TrainedState, "check_gradients", unused)
    with pytest.raises(UserFault) as raised:
        run(tmp_path, base, dataset)
    assert raised.value.reasons[0].field == "training.lora.targets"
    assert raised.value.reasons[0].value == "model.layers.0.self_attn.q_proj"


def test_training_goes_on_from_an_adapter_that_is_given(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    first = run(tmp_path, base, dataset)
    inputs = {"dataset": dataset, "adapter": first.outputs["adapter"]}
    second = train(context_of(tmp_path, settings(base), inputs, step="again"))
    assert losses(second)[0] < 0.9 * losses(first)[0]


def test_a_base_model_that_changed_since_it_was_checked_is_refused(
    tmp_path: Path, base: Path, dataset: ArtifactRef
) -> None:  # fmt: skip
    checked = StepResult(facts={"base_model_sha256": "0" * 64})
    with pytest.raises(UserFault) as raised:
        train(context_of(tmp_path, settings(base), {"dataset": dataset}, results={"prepare": checked}))
    assert raised.value.reasons[0].field == "base_model"


def test_a_quantised_base_computes_the_same_in_evaluation_and_in_training(base: Path) -> None:
    model = load_base(base, torch.float32, CPU, quantization="nf4")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        training, evaluation, again = (mode(ids).logits for mode in (model.train(), model.eval(), model.train()))
        plain = load_base(base, torch.float32, CPU)(ids).logits
    assert torch.equal(training, evaluation)
    assert torch.equal(training, again)
    assert 0 < (training - plain).abs().mean() < plain.abs().mean()


def test_qlora_learns_on_a_quantised_base(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    result = run(tmp_path, base, dataset, quantization="nf4")
    assert losses(result)[-1] < 0.8 * losses(result)[0]
    assert losses(result)[0] != losses(run(tmp_path / "plain", base, dataset))[0]
    load_for_inference(base, Path(result.outputs["adapter"].uri), torch.float32, CPU)


def test_bf16_learns_as_well(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    plain, rounded = run(tmp_path / "1", base, dataset), run(tmp_path / "2", base, dataset, precision="bf16")
    assert losses(rounded) == pytest.approx(losses(plain), rel=0.05)
    assert rounded.facts["precision"] == "bfloat16"
