"""Base and adapter are measured in the same way, on numbers that can be checked by other means."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import OPTConfig, OPTForCausalLM

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.lines import Message
from schemas.recipes.evaluation import EvaluationSettings
from schemas.rules import Rule
from schemas.steps import EvaluateSettings
from services.chassis.executor.child import UserFault
from services.language_models.chat_format.chat import Chat
from services.language_models.loading import load_tokenizer
from services.trainer.modelling import likelihood
from services.trainer.modelling.base import load_base
from services.trainer.modelling.likelihood import Padded
from services.trainer.steps import references
from services.trainer.steps.evaluate import evaluate
from tests.changed_adapter import changed_adapter
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


def test_a_batch_of_references_has_no_more_logits_than_are_bounded_and_the_losses_stay(
    tmp_path: Path, base: Path, dataset: ArtifactRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path, base, dataset, metrics=["loss"]).metrics
    read, batches = likelihood.log_probabilities, list[tuple[int, int]]()

    def watched(model: Any, batch: Padded) -> Any:
        logps, owner = read(model, batch)
        batches.append((len(batch.ids), len(logps)))
        return logps, owner

    monkeypatch.setattr(references, "log_probabilities", watched)
    monkeypatch.setattr(references, "tokens_of_logits", lambda vocabulary: 12)
    bounded = run(tmp_path, base, dataset, metrics=["loss"]).metrics
    assert sum(rows for rows, _ in batches) == 6
    assert len(batches) > 1
    assert all(tokens <= 12 or rows == 1 for rows, tokens in batches)
    assert bounded["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_predictions_hold_greedy_and_sampled_answers_of_every_row(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    result = run(tmp_path, base, dataset, samples=3)
    lines = lines_of(result.outputs["predictions"], "predictions.jsonl")
    assert [line["id"] for line in lines] == [f"row-{number}" for number in range(3, 9)]
    assert {len(line["samples"]) for line in lines} == {3}
    assert len({line["samples"][0] for line in lines}) > 1
    distinct = [len(set(line["samples"])) / 3 for line in lines]
    assert result.metrics["samples_distinct"] == pytest.approx(sum(distinct) / len(distinct))
    again = run(tmp_path, base, dataset, samples=3)
    assert lines_of(again.outputs["predictions"], "predictions.jsonl") == lines
    assert len(lines_of(run(tmp_path, base, dataset, rows=2).outputs["predictions"], "predictions.jsonl")) == 2


def test_only_what_is_asked_for_is_measured(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    asked: dict[str, Any] = {"metrics": ["valid_json", "exact_match", "rules", "latency"], "rules": [RULE], "samples": 1}
    result = run(tmp_path, base, dataset, **asked)
    metrics = dict(result.metrics)
    counts = {"rows", "rows_left_out", "answers", "answers_cut", "answer_tokens"}
    measured = {"valid_json", "exact_match", "exact_match_pass_at_1", "good_reply", "good_reply_pass_at_1"}
    bounds = {f"{name}_{side}" for name in measured for side in ("low", "high")}
    assert set(metrics) == counts | measured | bounds | {"latency_ms_per_token"}
    assert metrics["valid_json"] == metrics["exact_match"] == 0.0
    assert 0 < (metrics["latency_ms_per_token"] or 0) < 1000
    written = json.loads((Path(result.outputs["predictions"].uri) / "metrics.json").read_text())
    assert written == metrics
    lines = lines_of(result.outputs["predictions"], "predictions.jsonl")
    good = [0 < len(answer.split()) <= 3 for line in lines for answer in line["samples"]]
    assert metrics["good_reply"] == pytest.approx(sum(good) / len(good))


def test_the_loss_has_an_interval_and_so_has_the_perplexity(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    metrics = {name: value or 0.0 for name, value in run(tmp_path, base, dataset, metrics=["loss"]).metrics.items()}
    assert metrics["loss_low"] < metrics["loss"] < metrics["loss_high"]
    for name in ("", "_low", "_high"):
        assert metrics[f"perplexity{name}"] == pytest.approx(math.exp(metrics[f"loss{name}"]))
    again = run(tmp_path, base, dataset, metrics=["loss"]).metrics
    assert again == metrics


def test_numbers_are_compared_and_each_asked_k_has_its_pass_at_k(tmp_path: Path, base: Path) -> None:
    data = put_lines(tmp_path, test=[row(1, "2 + 2?", "2 + 2 = 4\n#### 4"), row(2, "3 + 4?", "#### 7")])
    metrics = run(tmp_path, base, data, metrics=["loss"], number_match=True, samples=4, pass_at=[1, 4]).metrics
    assert {"number_match", "number_match_pass_at_1", "number_match_pass_at_4"} < set(metrics)


def test_a_pass_at_k_of_more_answers_than_are_sampled_is_refused() -> None:
    with pytest.raises(ValidationError, match="pass_at 3 is not between 1 and the 2 sampled answers per prompt"):
        EvaluationSettings(samples=2, pass_at=(1, 3))


def test_answers_that_the_limit_cut_are_counted(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    metrics = run(tmp_path, base, dataset, metrics=["loss"], max_new_tokens=1, samples=1).metrics
    assert metrics["answers"] == 12
    assert metrics["answers_cut"] == 12
    assert metrics["answer_tokens"] == 1


@pytest.fixture
def short(tmp_path: Path, base: Path) -> Path:
    """A base model with 128 learnt positions: reading more is an error."""
    config = OPTConfig(
        vocab_size=300, hidden_size=32, word_embed_proj_dim=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=64,
        max_position_embeddings=128, bos_token_id=2, eos_token_id=2, pad_token_id=1,
    )  # fmt: skip
    folder = tmp_path / "short"
    OPTForCausalLM(config).save_pretrained(folder)
    load_tokenizer(base).save_pretrained(folder)
    return folder


def test_a_reference_longer_than_the_model_reads_is_cut_and_counted(tmp_path: Path, short: Path) -> None:
    data = put_lines(tmp_path, test=[row(2, "a", "word " * 200), row(3, "c", "d")])
    metrics = run(tmp_path, short, data, metrics=["loss", "latency"]).metrics
    assert (metrics["rows"], metrics["rows_left_out"], metrics["references_cut"]) == (2, 0, 1)


def test_a_prompt_that_leaves_no_room_for_an_answer_is_left_out_in_words(tmp_path: Path, short: Path) -> None:
    data = put_lines(tmp_path, test=[row(number, "a" * (number * 60), "b") for number in range(4)])
    result = run(tmp_path, short, data, metrics=["loss", "latency"])
    assert (result.metrics["rows"], result.metrics["rows_left_out"]) == (2, 2)
    assert result.facts["rows_left_out"].startswith("2 of 4 held-out rows leave no room for an answer in the 128 tokens")
    assert result.facts["rows_left_out"].endswith("row-2, row-3")
    assert [line["id"] for line in lines_of(result.outputs["predictions"], "predictions.jsonl")] == ["row-0", "row-1"]


def test_a_prompt_that_fills_what_the_model_reads_leaves_the_latency_unmeasured(tmp_path: Path, short: Path) -> None:
    chat = Chat(short)
    (frame,) = chat.prompts([(Message(role="user", content=""),)])
    data = put_lines(tmp_path, test=[row(1, "a" * (126 - len(frame)), "b")])
    assert run(tmp_path, short, data, metrics=["latency"], max_new_tokens=2).metrics["latency_ms_per_token"] is None


def test_if_no_prompt_leaves_room_the_evaluation_is_refused(tmp_path: Path, short: Path) -> None:
    data = put_lines(tmp_path, test=[row(1, "a" * 200, "b")])
    with pytest.raises(UserFault, match="no held-out prompt leaves room") as raised:
        run(tmp_path, short, data, metrics=["loss"])
    assert raised.value.reasons[0].field == "evaluation.max_new_tokens"


def test_an_adapter_changes_what_is_measured(tmp_path: Path, base: Path, dataset: ArtifactRef) -> None:
    plain = run(tmp_path, base, dataset, metrics=["loss"])
    changed = run(tmp_path, base, dataset, changed_adapter(tmp_path, base), metrics=["loss"])
    assert abs((changed.metrics["loss"] or 0) - (plain.metrics["loss"] or 0)) > 0.01


def test_without_held_out_rows_or_rules_there_is_nothing_to_measure(tmp_path: Path, base: Path) -> None:
    data = put_lines(tmp_path, train=[row(1, "a", "b")])
    with pytest.raises(UserFault) as raised:
        run(tmp_path, base, data, metrics=["rules"])
    assert [reason.field for reason in raised.value.reasons] == ["dataset.split.test", "evaluation.rules"]


def test_rows_without_a_reference_are_answered_and_have_no_loss(tmp_path: Path, base: Path) -> None:
    data = put_lines(tmp_path, test=[row(1, "2 + 2?", ""), row(2, "3 + 4?", "7")])
    asked: dict[str, Any] = {"metrics": ["loss", "exact_match"], "number_match": True, "samples": 1}
    result = run(tmp_path, base, data, **asked)
    first, second = lines_of(result.outputs["predictions"], "predictions.jsonl")
    assert (first["nll"], first["reference"], bool(first["greedy"])) == (None, "", True)
    assert result.metrics["loss"] == pytest.approx(second["nll"])
    assert result.metrics["exact_match"] == 0
    alone = run(tmp_path, base, put_lines(tmp_path, test=[row(1, "2 + 2?", "")]), **asked).metrics
    assert (alone["loss"], alone["exact_match"], alone["number_match"]) == (None, None, None)
