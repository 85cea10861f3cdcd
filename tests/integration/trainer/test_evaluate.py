"""Base and adapter are measured in the same way, on numbers that can be checked by other means."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.recipes import EvaluationSettings, LoraSettings
from schemas.rules import Rule
from schemas.steps import EvaluateSettings
from services.chassis.executor.child import UserFault
from services.trainer.modelling.adapter import new_adapter, write_adapter
from services.trainer.modelling.base import load_base
from services.trainer.modelling.chat import Chat
from services.trainer.steps.evaluate import evaluate
from tests.trainer import context_of, lines_of, put_lines, row

CPU = torch.device("cpu")
RULE = Rule(name="short", kind="max_words", words=3)


def run(home: Path, base: Path, data: ArtifactRef, adapter: ArtifactRef | None = None, **changes: Any) -> StepResult:
    evaluation = {"precision": "fp32", "max_new_tokens": 6, **changes}
    settings = EvaluateSettings(base_model=str(base), evaluation=EvaluationSettings.model_validate(evaluation))
    inputs = {"dataset": data} | ({"adapter": adapter} if adapter else {})
    return evaluate(context_of(home, settings, inputs))


def test_the_loss_is_the_mean_over_the_answers_tokens(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    result = run(tmp_path, base, dataset, metrics=["loss"])
    model, chat = load_base(base, torch.float32, CPU), Chat(base)
    total = tokens = 0.0
    for line in lines_of(result.outputs["predictions"], "predictions.jsonl"):
        prompt = chat.tokenizer.apply_chat_template(line["messages"], tokenize=False, add_generation_prompt=True)
        ids = chat.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer = chat.tokenizer(f"{line['reference']}<|im_end|>", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            labels = torch.tensor([[-100] * len(ids) + answer])
            loss = model(torch.tensor([[*ids, *answer]]), labels=labels).loss.item()
        assert line["nll"] == pytest.approx(loss, rel=1e-4)
        total, tokens = total + loss * len(answer), tokens + len(answer)
    assert result.metrics["loss"] == pytest.approx(total / tokens, rel=1e-4)


def test_predictions_hold_greedy_and_sampled_answers_of_every_row(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    result = run(tmp_path, base, dataset, samples=3)
    lines = lines_of(result.outputs["predictions"], "predictions.jsonl")
    assert [line["id"] for line in lines] == [f"row-{number}" for number in range(3, 9)]
    assert {len(line["samples"]) for line in lines} == {3}
    assert len({line["samples"][0] for line in lines}) > 1
    again = run(tmp_path, base, dataset, samples=3)
    assert lines_of(again.outputs["predictions"], "predictions.jsonl") == lines
    assert len(lines_of(run(tmp_path, base, dataset, rows=2).outputs["predictions"], "predictions.jsonl")) == 2


def test_only_what_is_asked_for_is_measured(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    asked: dict[str, Any] = {"metrics": ["valid_json", "exact_match", "rules", "latency"], "rules": [RULE], "samples": 1}
    result = run(tmp_path, base, dataset, **asked)
    metrics = dict(result.metrics)
    assert set(metrics) == {"rows", "valid_json", "exact_match", "good_reply", "latency_ms_per_token"}
    assert metrics["valid_json"] == metrics["exact_match"] == 0.0
    assert 0 < (metrics["latency_ms_per_token"] or 0) < 1000
    written = json.loads((Path(result.outputs["predictions"].uri) / "metrics.json").read_text())
    assert written == metrics
    lines = lines_of(result.outputs["predictions"], "predictions.jsonl")
    good = [0 < len(answer.split()) <= 3 for line in lines for answer in line["samples"]]
    assert metrics["good_reply"] == pytest.approx(sum(good) / len(good))


def test_an_adapter_changes_what_is_measured(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    adapted = new_adapter(load_base(base, torch.float32, CPU), LoraSettings(rank=2), seed=0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(weight)
    folder = tmp_path / "adapter"
    folder.mkdir()
    write_adapter(adapted, folder, str(base))
    Chat(base).save(folder)
    context = context_of(tmp_path, EvaluateSettings(base_model=str(base)))
    plain = run(tmp_path, base, dataset, metrics=["loss"])
    changed = run(tmp_path, base, dataset, context.store.put(folder), metrics=["loss"])
    assert abs((changed.metrics["loss"] or 0) - (plain.metrics["loss"] or 0)) > 0.01


def test_without_held_out_rows_or_rules_there_is_nothing_to_measure(tmp_path: Path, base: Path) -> None:
    data = put_lines(tmp_path, train=[row(1, "a", "b")])
    with pytest.raises(UserFault) as raised:
        run(tmp_path, base, data, metrics=["rules"])
    assert [reason.field for reason in raised.value.reasons] == ["dataset.split.test", "evaluation.rules"]
