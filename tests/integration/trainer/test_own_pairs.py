"""Whoever has preference pairs requests `dpo`, and the model learns them: no sampling, no judge."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.requests import JobRequest
from schemas.steps import CompressSettings, EvaluateSettings, PrepareSettings, TrainSettings
from services.orchestrator.domain.planning import plan
from services.trainer.steps.compress import compress
from services.trainer.steps.evaluate import evaluate
from services.trainer.steps.prepare import prepare
from services.trainer.steps.train import train
from tests.trainer import context_of, lines_of

HANDLERS = {PrepareSettings: prepare, TrainSettings: train, EvaluateSettings: evaluate, CompressSettings: compress}


def run_plan(home: Path, request: JobRequest) -> dict[str, StepResult]:
    """Run the trainer's steps of a job in order, each with the outputs of those before it."""
    results = dict[str, StepResult]()
    for step in plan(request):
        handler = HANDLERS.get(type(step.settings))
        if handler is not None:
            inputs = {name: output_of(results, binding) for name, binding in step.inputs.items()}
            results[step.name] = handler(context_of(home, step.settings, inputs, step=step.name))
    return results


def output_of(results: dict[str, StepResult], binding: str) -> ArtifactRef:
    step, _, output = binding.rpartition(".")
    return results[step].outputs[output]


def chats(number: int) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"Where is parcel {number}?"}]
    return {
        "conversations": turns,
        "chosen": {"from": "gpt", "value": "Sorry."},
        "rejected": {"from": "gpt", "value": "No."},
    }


def texts(number: int) -> dict[str, Any]:
    return {"prompt": f"Where is parcel {number}?", "chosen": "Sorry.", "rejected": "No."}


def openai(number: int) -> dict[str, Any]:
    def turn(role: str, text: str) -> dict[str, str]:
        return {"role": role, "content": text}

    return {
        "input": {"messages": [turn("user", f"Where is parcel {number}?")], "tools": []},
        "preferred_output": [turn("assistant", "Sorry.")],
        "non_preferred_output": [turn("assistant", "No.")],
    }


@pytest.mark.parametrize("form", [texts, chats, openai])
def test_pairs_of_ones_own_are_learnt_from_the_file_to_the_measured_adapter(tmp_path: Path, base: Path, form: Any) -> None:
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(form(number)) + "\n" for number in range(30)))
    optimiser = {"learning_rate": 3e-3, "steps": 6, "batch_size": 4}
    request = {
        "job_id": "job", "requester": "test", "pipeline": "dpo", "base_model": str(base), "register_as": "m",
        "dataset": {"reference": str(tmp_path / "all.jsonl"), "split": {"test_fraction": 0.2}},
        "preference": {"precision": "fp32", "max_length": 96, "optimiser": optimiser},
        "evaluation": {"metrics": ["loss"], "precision": "fp32"},
    }  # fmt: skip
    results = run_plan(tmp_path, JobRequest.model_validate(request))
    curve = lines_of(results["train"].outputs["adapter"], "curve.jsonl")
    assert curve[-1]["reward_margin"] > 0
    assert results["train"].metrics["examples"] == results["prepare"].metrics["pairs"]
    assert (results["evaluate"].metrics["loss"] or 0) < (results["evaluate-base"].metrics["loss"] or 0)
