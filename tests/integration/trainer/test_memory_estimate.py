"""The memory of a training is estimated part by part before it starts, recorded with what it took, and refused if it cannot fit."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from schemas.recipes.compression import CompressionSettings
from schemas.recipes.dataset import DatasetSettings
from schemas.recipes.distill import DistillSettings
from schemas.recipes.feedback import FeedbackSettings
from schemas.recipes.grpo import GrpoSettings
from schemas.recipes.harness import HarnessSettings
from schemas.recipes.lora import LoraSettings
from schemas.recipes.methods import MethodSettings
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import AnswersAtOnce, JudgedAtOnce, PrepareSettings
from services.chassis.executor.child import UserFault
from services.cli.main import app
from tests.base_models import configured, dressed, random_model, run_job
from tests.harness_tasks import answer_task
from tests.trainer import context_of


def estimate(
    base: Path,
    *,
    rows: int = 4,
    length: int = 64,
    supervised: int = 100,
    optimiser: dict[str, Any] | None = None,
    **more: Any,
) -> Any:
    import torch

    from services.trainer.modelling.architecture import architecture_of
    from services.trainer.modelling.memory import TrainedBatch, estimated

    given: dict[str, Any] = {
        "lora": LoraSettings(rank=4),
        "dtype": torch.float32,
        "quantization": "none",
        "attention": "sdpa",
        **more,
    }
    batch = TrainedBatch(rows, length, supervised)
    return estimated(
        architecture_of(base), given["lora"], OptimiserSettings(**optimiser or {}), batch, given["dtype"],
        given["quantization"], "cpu", given["attention"],
    )  # fmt: skip


def test_weights_and_what_is_trained_are_counted_exactly(tmp_path: Path, base: Path) -> None:
    import torch

    from services.trainer.modelling.adapter import new_adapter
    from services.trainer.modelling.base import load_base

    model = load_base(base, torch.float32, torch.device("cpu"))
    whole = sum(weight.numel() for weight in model.parameters())
    trained = sum(
        weight.numel() for weight in new_adapter(model, LoraSettings(rank=4), 0).parameters() if weight.requires_grad
    )
    found = estimate(base)
    assert found.weights == 4 * whole
    assert (found.adapter, found.gradients, found.optimiser) == (4 * trained, 4 * trained, 8 * trained)
    assert estimate(base, dtype=torch.bfloat16).weights == 2 * whole
    assert found.total == sum(getattr(found, part) for part in found.PARTS)


def test_all_weights_have_gradients_and_moments_in_fp32(base: Path) -> None:
    import torch

    found = estimate(base, lora=None, dtype=torch.bfloat16)
    assert (found.adapter, found.gradients, found.optimiser) == (0, found.weights, 2 * found.weights)
    assert found.weights == 2 * estimate(base, dtype=torch.bfloat16).weights


def test_moments_in_8_bits_have_a_scale_for_each_block_and_small_weights_and_embeddings_have_none() -> None:
    import torch

    from services.trainer.modelling.memory import state_bytes

    model = torch.nn.Sequential(
        torch.nn.Linear(64, 64, bias=False), torch.nn.Linear(8, 8, bias=False), torch.nn.Embedding(64, 64)
    )
    assert state_bytes(model, OptimiserSettings(name="adamw_8bit")) == 2 * (4096 + 4 * 16) + 8 * 64 + 8 * 4096
    assert state_bytes(model, OptimiserSettings()) == 8 * (4096 + 64 + 4096)


def test_packed_rows_need_masks_in_blocks(base: Path) -> None:
    from services.trainer.modelling.architecture import architecture_of
    from services.trainer.modelling.memory import TrainedBatch
    from services.trainer.steps.memory import estimate_of, packed

    assert packed(TrainedBatch(8, 100, 50), 256) == TrainedBatch(4, 200, 50)
    assert packed(TrainedBatch(8, 300, 50), 256) == TrainedBatch(8, 300, 50)
    settings = {"precision": "fp32", "max_length": 400}
    padded, together = (
        estimate_of(architecture_of(base), TrainingSettings(**settings, packing=packing), TrainedBatch(4, 100, 50))
        for packing in (False, True)
    )
    assert together.activations >= padded.activations + 400 * 400 - 4 * 100 * 100


def test_activations_grow_with_tokens_and_logits_with_supervised_tokens(base: Path) -> None:
    found, doubled = estimate(base), estimate(base, rows=8, supervised=200)
    assert doubled.activations == pytest.approx(2 * found.activations, rel=0.05)
    assert doubled.logits == 2 * found.logits
    assert estimate(base, length=128, attention="eager").activations > 2 * found.activations


def test_4_bit_weights_are_smaller_and_whole_modules_larger(tmp_path: Path) -> None:
    base = dressed(tmp_path / "base", random_model("Llama", hidden_size=64, tie_word_embeddings=False))
    assert estimate(base, quantization="nf4").weights < estimate(base).weights
    saved = estimate(base, lora=LoraSettings(rank=4, modules_to_save=("embed_tokens",)))
    assert saved.adapter >= estimate(base).adapter + 4 * 300 * 64


def test_recomputed_activations_and_adafactor_take_less(tmp_path: Path) -> None:
    base = dressed(tmp_path / "base", random_model("Llama", num_hidden_layers=6))
    found = estimate(base)
    assert estimate(base, optimiser={"activation_checkpointing": True}).activations < found.activations / 2
    assert estimate(base, optimiser={"name": "adafactor"}).optimiser < found.optimiser


@pytest.mark.parametrize("architecture", ["GPT2", "Gemma2", "Bloom", "Qwen3", "Mixtral", "GptOss"])
def test_other_architectures_are_traced(tmp_path: Path, architecture: str) -> None:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "head_dim": 8}
    base = dressed(tmp_path / "base", random_model(architecture, **sizes))
    assert estimate(base, attention="eager").activations > 0


def test_of_the_experts_only_those_that_a_token_is_sent_to_have_activations(tmp_path: Path) -> None:
    def activations(**experts: int) -> int:
        name = "-".join(map(str, experts.values()))
        return int(estimate(dressed(tmp_path / name, random_model("Mixtral", **experts)), length=256).activations)

    few, many = (activations(num_experts_per_tok=1, num_local_experts=number) for number in (2, 8))
    assert many == pytest.approx(few, rel=0.2)
    assert activations(num_experts_per_tok=2, num_local_experts=8) > 1.1 * many


def test_what_cannot_be_traced_is_said_in_words_without_the_trace_of_the_library(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import LlamaModel

    from services.orchestrator.domain.validation import RejectedRequest, examine
    from services.trainer.estimating import Folders
    from services.trainer.estimating import estimate as estimates

    def needs_values(self: Any, input_ids: Any, **more: Any) -> None:
        assert input_ids.sum().item() > 0

    monkeypatch.setattr(LlamaModel, "forward", needs_values)
    asked = {
        "job_id": "j",
        "base_model": str(base), "dataset": {"reference": "rows"}, "register_as": "m", "requester": "me", "pipeline": "sft"
    }  # fmt: skip
    examined = examine(asked, (), datetime.now(UTC))
    assert not isinstance(examined, RejectedRequest)
    with pytest.raises(UserFault, match=r"cannot be traced \(DataDependentOutputException\); start the job"):
        estimates(examined.request, examined.plan, Folders(base))
    assert "Traceback" not in caplog.text


def test_a_finished_training_records_the_estimate_and_the_measured_peak(tmp_path: Path, base: Path) -> None:
    trained, _ = run_job(tmp_path, base)
    assert trained.metrics["memory_estimate_bytes"] > 2**29
    assert trained.metrics["memory_peak_bytes"] > 2**28


def test_a_training_that_cannot_fit_one_example_is_refused_with_the_largest_parts(base: Path) -> None:
    from services.trainer.modelling.architecture import architecture_of
    from services.trainer.steps.memory import refuse_too_large

    refuse_too_large(architecture_of(base), TrainingSettings(), "training", 64, 2**36)
    with pytest.raises(
        UserFault, match=r"training: the device's memory does not suffice.*overhead 0\.9.*quantization to nf4"
    ):
        refuse_too_large(architecture_of(base), TrainingSettings(), "training", 64, 2**20)


@pytest.mark.parametrize(
    ("section", "settings", "limit"),
    [
        ("training", TrainingSettings(), "max_length"),
        ("grpo", GrpoSettings(), "max_prompt_tokens"),
        ("distill", DistillSettings(), "max_prompt_tokens"),
    ],
)
def test_the_remedy_for_long_rows_names_a_setting_of_the_method(
    base: Path, section: str, settings: MethodSettings, limit: str
) -> None:
    from services.trainer.modelling.architecture import architecture_of
    from services.trainer.steps.memory import refuse_too_large

    assert limit in type(settings).model_fields
    with pytest.raises(UserFault, match=rf"lower {section}\.{limit}, or"):
        refuse_too_large(architecture_of(base), settings, section, 2048, 2**20)


def test_jobs_estimate_shows_every_training_of_a_request(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROWEAVER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NEUROWEAVER_SOURCES_FOLDERS", f"{tmp_path},{base.parent}")
    request = {
        "base_model": str(base),
        "dataset": {"reference": "rows.jsonl"},
        "register_as": "m",
        "requester": "me",
        "pipeline": "rlaif",
    }
    file = tmp_path / "job.json"
    file.write_text(json.dumps(request))
    result = CliRunner().invoke(app, ["jobs", "estimate", str(file), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {step["step"]: step["kind"] for step in found["steps"]} == {
        "evaluate-base": "evaluate", "score-base": "score", "train": "train", "evaluate-sft": "evaluate", "score-sft": "score",
        "sample": "sample", "label": "label", "align": "train", "evaluate": "evaluate", "score": "score",
    }  # fmt: skip
    assert all(step["bytes"] == sum(step["parts"].values()) for step in found["steps"])
    assert CliRunner().invoke(app, ["jobs", "estimate", str(file)]).exit_code == 0
    file.write_text(json.dumps({**request, "base_model": str(tmp_path / "none")}))
    assert CliRunner().invoke(app, ["jobs", "estimate", str(file)]).exit_code == 2


def prepared(home: Path, base: Path, memory_bytes: int | None = None, **settings: Any) -> Any:
    from services.trainer.steps.prepare import prepare

    data = home / "rows.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{n}?", "completion": "yes" * n}) + "\n" for n in range(1, 9)))
    dataset = DatasetSettings.model_validate({"reference": str(data), "split": {"test": None}})
    context = context_of(home, PrepareSettings(base_model=str(base), dataset=dataset, max_length=64, **settings))
    context.task = context.task.model_copy(update={"memory_bytes": memory_bytes})
    return prepare(context)


AT_ONCE = AnswersAtOnce(prompts=4, answers=3, tokens=16)


def test_prepare_tells_what_the_later_steps_need_from_the_rows_that_it_read(tmp_path: Path, base: Path) -> None:
    small = TrainingSettings.model_validate({"optimiser": {"batch_size": 1}})
    large = TrainingSettings.model_validate({"optimiser": {"batch_size": 64}})
    found = prepared(tmp_path, base, training=small, answers=AT_ONCE).needs
    assert set(found) == {"training", "generation"}
    assert all(2**29 < need.memory_bytes < 2**31 for need in found.values())
    assert prepared(tmp_path, base, training=large).needs["training"].memory_bytes > found["training"].memory_bytes


JUDGED = JudgedAtOnce(feedback=FeedbackSettings(), answers=2, tokens=16)


def test_prepare_tells_what_judges_and_compressions_need(tmp_path: Path, base: Path) -> None:
    from services.trainer.modelling.architecture import architecture_of

    other = dressed(tmp_path / "judge", random_model("Llama", hidden_size=512, num_hidden_layers=8))
    merged = CompressionSettings(method="merge")
    found = prepared(tmp_path, base, judged=JUDGED, compressions=(merged,)).needs
    assert set(found) == {"judging", "compression"}
    own = JUDGED.model_copy(update={"feedback": FeedbackSettings.model_validate({"judge": {"model": str(other)}})})
    larger = prepared(tmp_path, base, judged=own).needs["judging"].memory_bytes - found["judging"].memory_bytes
    assert larger >= architecture_of(other).parameters, "the judge's own model counts"


@pytest.mark.parametrize("judge", [{"model": "/nowhere"}, {"reward_model": "judge@1.0.0"}])
def test_a_judge_that_this_machine_does_not_have_has_no_estimate_and_is_not_fetched(
    tmp_path: Path, base: Path, judge: dict[str, str]
) -> None:
    away = JUDGED.model_copy(update={"feedback": FeedbackSettings.model_validate({"judge": judge})})
    assert prepared(tmp_path, base, judged=away).needs == {}


def test_a_compression_that_cannot_fit_is_refused_by_prepare(tmp_path: Path, base: Path) -> None:
    merged = CompressionSettings(method="merge")
    with pytest.raises(UserFault, match=r"compression: .*memory does not suffice: merge holds .*smaller base model"):
        prepared(tmp_path, base, memory_bytes=2**28, compressions=(merged,))


def test_a_step_that_generates_and_cannot_fit_one_prompt_is_refused_by_prepare(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UserFault, match=r"base_model: .*memory does not suffice|max_new_tokens: .*memory does not suffice"):
        prepared(tmp_path, base, memory_bytes=2**28, answers=AT_ONCE)
    long = AT_ONCE.model_copy(update={"tokens": 10**7})
    with pytest.raises(UserFault, match=r"max_new_tokens: .*\(got 10000000\); lower max_new_tokens"):
        prepared(tmp_path, base, memory_bytes=2**31, answers=long)


def test_the_longest_answers_of_the_tasks_of_the_harness_count(tmp_path: Path, base: Path) -> None:
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")

    def asked(tokens: int, memory_bytes: int | None = None) -> Any:
        task = answer_task(tmp_path / "tasks", generation_kwargs={"until": ["x"], "max_gen_toks": tokens})
        longer = configured(
            Path(shutil.copytree(base, tmp_path / "longer", dirs_exist_ok=True)), max_position_embeddings=10**8
        )
        return prepared(tmp_path, longer, memory_bytes, answers=AT_ONCE, harness=HarnessSettings(tasks=(str(task),))).needs

    few, many = (asked(tokens)["generation"].memory_bytes for tokens in (8, 10**5))
    assert few < many
    with pytest.raises(UserFault, match=r"harness\.tasks: .*memory does not suffice.*\(got 10000000\); lower max_gen_toks"):
        asked(10**7, memory_bytes=2**31)


def test_a_training_that_the_slots_cannot_hold_is_refused_though_the_machine_could(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UserFault, match=r"training: the device's memory does not suffice"):
        prepared(tmp_path, base, memory_bytes=2**29, training=TrainingSettings())
