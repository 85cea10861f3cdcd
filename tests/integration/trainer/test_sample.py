"""Feedback gets candidates of distinct prompts that the seed decides, each with what it needs to judge them."""

from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.recipes.sampling import SamplingSettings
from schemas.steps import SampleSettings
from services.chassis.executor.child import Stopping, UserFault
from services.trainer.steps.sample import sample
from tests.trainer import context_of, lines_of, put_lines, row


@pytest.fixture
def rows(tmp_path: Path) -> ArtifactRef:
    """Twelve prompts, one of them with two answers."""
    lines = [row(number, f"What is {number}?", str(number), item="kettle") for number in range(12)]
    return put_lines(tmp_path, train=[*lines, row(99, "What is 3?", "three", item="kettle")])


def settings(base: Path, **sampling: Any) -> SampleSettings:
    wanted = {"n": 3, "prompts": 5, "max_new_tokens": 8, **sampling}
    return SampleSettings(base_model=str(base), sampling=SamplingSettings.model_validate(wanted))


def candidates(home: Path, base: Path, rows: ArtifactRef, **sampling: Any) -> list[dict[str, Any]]:
    result = sample(context_of(home, settings(base, **sampling), {"dataset": rows}))
    return lines_of(result.outputs["candidates"], "candidates.jsonl")


def test_every_candidate_comes_with_its_row(tmp_path: Path, base: Path, rows: ArtifactRef) -> None:
    lines = candidates(tmp_path, base, rows)
    assert len(lines) == 5
    for line in lines:
        number = line["id"].removeprefix("row-")
        assert line["messages"] == [{"role": "user", "content": f"What is {number}?"}]
        assert (line["completion"], line["columns"]) == (number, {"item": "kettle"})
        assert len(line["candidates"]) == 3
    assert len({answer for line in lines for answer in line["candidates"]}) > 5


def test_the_seed_decides_prompts_and_answers(tmp_path: Path, base: Path, rows: ArtifactRef) -> None:
    assert candidates(tmp_path, base, rows) == candidates(tmp_path, base, rows)
    assert candidates(tmp_path, base, rows) != candidates(tmp_path, base, rows, seed=1)


def test_a_prompt_is_sampled_once_though_rows_repeat_it(tmp_path: Path, base: Path, rows: ArtifactRef) -> None:
    lines = candidates(tmp_path, base, rows, prompts=100)
    assert [line["id"] for line in lines] == [f"row-{number}" for number in range(12)]


def test_answers_that_the_model_cannot_read_to_their_end_are_refused(
    tmp_path: Path, base: Path, rows: ArtifactRef
) -> None:  # fmt: skip
    with pytest.raises(UserFault, match="1024"):
        candidates(tmp_path, base, rows, max_new_tokens=1020)


def test_a_stop_ends_the_step_between_two_tokens(tmp_path: Path, base: Path, rows: ArtifactRef) -> None:
    context = context_of(tmp_path, settings(base), {"dataset": rows})
    context.stop()
    with pytest.raises(Stopping):
        sample(context)


def test_candidates_that_reach_the_limit_are_marked_as_cut(tmp_path: Path, base: Path, rows: ArtifactRef) -> None:
    context = context_of(tmp_path, settings(base, max_new_tokens=1), {"dataset": rows})
    result = sample(context)
    marks = [mark for line in lines_of(result.outputs["candidates"], "candidates.jsonl") for mark in line["cut"]]
    assert len(marks) == 15
    assert result.metrics["cut"] == sum(marks) > 0
