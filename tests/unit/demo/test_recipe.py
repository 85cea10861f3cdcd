"""What the demo asks for is accepted by the contract and planned as its report expects, without starting anything."""

import json
from typing import get_args

import pytest
from typer.testing import CliRunner

from schemas.requests import PRESETS, JobRequest
from services.cli.main import app
from services.demo.constitution import OPPOSITE, PRINCIPLE, RULES
from services.demo.dataset import splits
from services.demo.recipe import Pipeline, job_request
from services.demo.report import STAGES, TRAINING
from services.orchestrator.domain.planning import plan

REQUEST = job_request("rlaif", job_id="demo-1", base_model="base")


@pytest.mark.parametrize("pipeline", get_args(Pipeline))
def test_the_data_of_the_event_is_a_valid_request(pipeline: Pipeline) -> None:
    job = job_request(pipeline, job_id="demo-1", base_model="base")
    assert pipeline in PRESETS
    assert JobRequest.model_validate(json.loads(job.model_dump_json())) == job


@pytest.mark.parametrize("pipeline", get_args(Pipeline))
def test_the_plan_has_the_steps_that_the_report_reads(pipeline: Pipeline) -> None:
    steps = {step.name: step for step in plan(job_request(pipeline, job_id="demo-1", base_model="base"))}
    for evaluation, scoring in STAGES[pipeline].values():
        assert steps[evaluation].kind == "evaluate"
        assert scoring is None or steps[scoring].kind == "score"
    assert [name for name, step in steps.items() if step.kind == "train"] == [name for name in TRAINING if name in steps]


def test_the_columns_it_names_are_those_of_the_data() -> None:
    columns, row = REQUEST.dataset.columns, splits()["train"][0]
    assert {columns.prompt, columns.completion} <= row.keys()
    assert {rule.column for rule in RULES if rule.column} <= row.keys()
    answer = json.loads(row["answer"])
    assert REQUEST.feedback.judged_field in answer
    assert REQUEST.evaluation.rules_field in answer
    assert set(REQUEST.feedback.equal_fields) == set(REQUEST.evaluation.exact_match_fields) == answer.keys() - {"reply"}


def test_the_training_sees_fewer_rows_than_there_are_and_no_row_twice() -> None:
    optimiser = REQUEST.training.optimiser
    assert optimiser.steps is not None
    assert optimiser.steps * optimiser.batch_size < len(splits()["train"])


def test_there_is_room_for_the_longest_row_and_answer() -> None:
    """With the base model's tokenizer an answer has at least 3.5 characters a token, the prompt's frame 25 tokens."""
    rows = [row for split in splits().values() for row in split]
    assert max(len(row["answer"]) for row in rows) / 3.5 + 2 < REQUEST.evaluation.max_new_tokens
    assert REQUEST.sampling.max_new_tokens == REQUEST.evaluation.max_new_tokens
    assert max(len(row["request"]) / 3.5 + 25 + len(row["answer"]) / 3.5 + 2 for row in rows) < REQUEST.training.max_length


def test_the_judge_reads_a_principle_and_knows_no_item() -> None:
    assert REQUEST.feedback.rubric.principle == PRINCIPLE != OPPOSITE == REQUEST.feedback.rubric.opposite
    assert REQUEST.feedback.judge.kind == "local"
    assert REQUEST.feedback.judge.scoring == "likelihood"
    items = {row["item"] for split in splits().values() for row in split}
    assert not [item for item in items if item in (PRINCIPLE + OPPOSITE).lower()]


def test_a_dry_run_prints_the_request_and_starts_nothing() -> None:
    answer = CliRunner().invoke(app, ["demo", "--dry-run", "--pipeline", "sft"])
    assert answer.exit_code == 0
    job = JobRequest.model_validate_json(answer.stdout)
    assert job.pipeline == "sft"
    assert job.job_id.startswith("demo-sft-")


def test_an_unknown_pipeline_is_a_usage_error() -> None:
    answer = CliRunner().invoke(app, ["demo", "--pipeline", "sfx"])
    assert answer.exit_code == 2
    assert "sfx" in answer.output
