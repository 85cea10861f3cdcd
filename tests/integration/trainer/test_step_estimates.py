"""Every step of a job that loads a model has an estimate of its memory, by what it holds at once."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.orchestrator.domain.validation import RejectedRequest, examine

RULE = {"name": "polite", "kind": "contains_any", "values": ["please"]}
DATA = {"inputs": {"dataset": "prepare.dataset"}}
JUDGED = [
    {"name": "prepare", "kind": "prepare"},
    {"name": "sample", "kind": "sample", **DATA},
    {"name": "label", "kind": "label", "inputs": {"candidates": "sample.candidates"}},
    {"name": "evaluate", "kind": "evaluate", **DATA},
    {"name": "score", "kind": "score", "inputs": {"predictions": "evaluate.predictions"}},
]
MADE = [
    {"name": "prepare", "kind": "prepare"},
    {"name": "train", "kind": "train", "method": "sft", **DATA},
    {"name": "sample", "kind": "sample", "inputs": {"dataset": "prepare.dataset", "adapter": "train.adapter"}},
    {"name": "merge", "kind": "compress", "inputs": {"adapter": "train.adapter"}},
    {"name": "compare", "kind": "compress", "inputs": {"adapter": "train.adapter", "dataset": "prepare.dataset"}},
    {"name": "register", "kind": "register", "inputs": {"model": "merge.model"}},
]


def estimates(base: Path, pipeline: Any = JUDGED, judge: Path | None = None, **request: Any) -> dict[str, Any]:
    """Return the estimates of a request's steps by name."""
    from services.trainer.estimating import Folders, estimate

    asked = {
        "job_id": "j", "base_model": str(base), "dataset": {"reference": "rows"}, "register_as": "m", "requester": "me",
        "pipeline": pipeline, **request,
    }  # fmt: skip
    examined = examine(asked, (), datetime.now(UTC))
    assert not isinstance(examined, RejectedRequest), examined
    return {step.step: step for step in estimate(examined.request, examined.plan, Folders(base, None, judge)).steps}


def parameters(base: Path) -> int:
    from services.trainer.modelling.architecture import architecture_of

    return sum(weight.numel() for weight in architecture_of(base).empty().parameters())


def test_sampling_counts_the_cache_of_all_candidates(base: Path) -> None:
    def sample(**sampling: Any) -> Any:
        return estimates(base, sampling={"batch_size": 4, "prompts": 4, "n": 2, **sampling})["sample"]

    found = sample()
    assert (found.rows, found.length) == (8, 512 + 128)
    assert sample(n=4).parts["cache"] == 2 * found.parts["cache"]
    assert sample(n=4).parts["logits"] == 2 * found.parts["logits"]
    assert found.bytes == sum(found.parts.values())


def test_evaluation_counts_the_references_that_are_scored_at_once(base: Path) -> None:
    def logits(**evaluation: Any) -> int:
        return int(estimates(base, evaluation={"batch_size": 8, **evaluation})["evaluate"].parts["logits"])

    assert logits(batch_size=16) == 2 * logits()
    assert logits(rows=4) == logits() / 2
    assert logits(metrics=["latency"]) < logits()
    assert logits(batch_size=4096) < 700 * 2**20, "a batch of references is bounded by its logits"


def test_a_judge_by_likelihood_scores_every_token_of_a_batch_of_bounded_logits(base: Path) -> None:
    def label(batch_size: int) -> Any:
        return estimates(base, feedback={"judge": {"kind": "local", "batch_size": batch_size}})["label"]

    assert label(4).parts["logits"] == 2 * label(2).parts["logits"]
    assert label(4096).parts["logits"] <= 512 * 2**20
    assert label(4096).rows < 4096


def test_a_judge_that_asks_reads_the_prompt_and_both_answers(base: Path) -> None:
    def steps(scoring: str) -> dict[str, Any]:
        return estimates(base, feedback={"judge": {"kind": "local", "scoring": scoring}}, training={"max_length": 64})

    asked = steps("question")
    assert asked["label"].length == asked["score"].length + 128
    assert asked["label"].length > steps("likelihood")["label"].length + 64
    assert asked["label"].parts["cache"] == 0


def test_a_reward_model_is_merged_in_fp32_and_reads_whole_chats(base: Path) -> None:
    judge = {"reward_model": str(base), "batch_size": 2}
    found = estimates(base, judge=base, feedback={"judge": judge}, training={"max_length": 64})["label"]
    assert (found.rows, found.length, found.parts["logits"]) == (2, 64 + 128, 0)
    assert found.bytes - found.parts["overhead"] >= 4 * parameters(base)


def test_a_judge_elsewhere_loads_no_model(base: Path) -> None:
    there = {"kind": "openai", "endpoint": "http://127.0.0.1:1/v1", "model": "m"}
    for judge in ({"kind": "rules"}, there):
        feedback = {"judge": judge, "rubric": {"rules": [RULE]}}
        assert {"label", "score"}.isdisjoint(estimates(base, feedback=feedback))


def test_a_compression_holds_its_parent_in_fp32_and_as_much_again_and_the_rows_on_which_both_are_compared(
    base: Path,
) -> None:
    found = estimates(base, MADE)
    assert set(found) == {"train", "sample", "merge", "compare"}
    merge, compare = found["merge"], found["compare"]
    assert merge.bytes - merge.parts["overhead"] == (8 + 4) * parameters(base), "and its adapter merged"
    gguf = estimates(base, MADE, compression={"method": "gguf", "gguf_type": "f32"})["merge"]
    assert gguf.bytes - gguf.parts["overhead"] == (10 + 4) * parameters(base), "a file that is read back"
    assert (merge.rows, merge.parts["logits"]) == (0, 0)
    assert (compare.rows, compare.length) == (16, 512)
    assert compare.bytes > merge.bytes + compare.parts["logits"]


def test_a_training_that_samples_its_answers_counts_them(base: Path) -> None:
    from schemas.recipes.grpo import GrpoSettings
    from schemas.recipes.sft import TrainingSettings
    from services.trainer.modelling.architecture import architecture_of
    from services.trainer.steps.needs import sampled_bytes

    few, many = (sampled_bytes(architecture_of(base), GrpoSettings(max_new_tokens=tokens)) for tokens in (8, 64))
    assert many > few > 0
    assert sampled_bytes(architecture_of(base), TrainingSettings()) == 0


def test_mapped_files_count_while_weights_of_another_type_are_read(base: Path) -> None:
    import torch

    from services.trainer.modelling.architecture import architecture_of
    from services.trainer.modelling.generation_memory import Decoded, generation_estimate

    def files(dtype: torch.dtype, size: int, **more: Any) -> int:
        batch = Decoded(1, 1, 1, 1, 0)
        return generation_estimate(architecture_of(base), batch, dtype, "cpu", files=size, **more).files

    whole = 4 * parameters(base)
    assert files(torch.float32, whole) == 0, "they are the weights"
    assert 0 < files(torch.bfloat16, whole) <= whole
    assert files(torch.bfloat16, 0, adapted=True) == 0


def test_an_adapter_is_merged_in_fp32_whatever_the_step_computes_in(base: Path) -> None:
    import torch

    from services.trainer.modelling.architecture import architecture_of
    from services.trainer.modelling.generation_memory import Decoded, generation_estimate

    found = generation_estimate(architecture_of(base), Decoded(1, 1, 1, 1, 0), torch.bfloat16, "cpu", adapted=True)
    assert (found.merging, found.weights) == (4 * parameters(base), 2 * parameters(base))
