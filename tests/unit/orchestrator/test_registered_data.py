"""A job that names a registered data set learns from the rows that the registry finds, exactly as they were stored."""

from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import JobRejected, StepCompleted, StepRequested, StepResult
from tests.unit.orchestrator.scenario import JobScenario, names, one_request

ROWS = ArtifactRef(uri="/artifacts/rows", sha256="a" * 64, size=1)
PAIRS = ArtifactRef(uri="/artifacts/pairs", sha256="b" * 64, size=1)
NAMED = "support@0123456789ab"


def found(job: JobScenario, **outputs: ArtifactRef) -> StepRequested:
    """Let the registry find the data set, and return the request that follows."""
    result = StepResult(outputs=outputs, facts={"resolved_dataset": f"support@{'0' * 64}"})
    return one_request(job._executor(StepCompleted, "resolve-data", 1, result=result))


def rejected(**fields: Any) -> JobRejected:
    (data,) = JobScenario().requested(**fields)
    assert isinstance(data, JobRejected)
    return data


def test_the_registry_finds_the_rows_first_and_prepare_reads_them() -> None:
    job = JobScenario()
    decided = job.requested(dataset={"reference": NAMED})
    assert names(decided)[1:] == ["StepRequested.v2 resolve-data/1"]
    asked = one_request(decided[1:])
    assert (asked.settings.dataset, asked.settings.field) == (NAMED, "dataset.reference")  # type: ignore[union-attr]
    prepare = found(job, dataset=ROWS)
    assert (prepare.step, prepare.inputs) == ("prepare", {"dataset": ROWS})
    evaluate, train = (one for one in job.completed("prepare") if isinstance(one, StepRequested))
    assert ROWS not in {*evaluate.inputs.values(), *train.inputs.values()}, "they read what prepare stored"


def test_pairs_come_with_the_rows_where_there_are_some() -> None:
    job = JobScenario()
    job.requested(dataset={"reference": NAMED}, pipeline="dpo")
    assert found(job, dataset=ROWS, preferences=PAIRS).inputs == {"dataset": ROWS, "preferences": PAIRS}


def test_a_registered_version_and_a_registered_data_set_are_found_side_by_side() -> None:
    job = JobScenario()
    decided = job.requested(dataset={"reference": NAMED}, base_model="router@candidate")
    assert sorted(names(decided)[1:]) == ["StepRequested.v2 resolve-data/1", "StepRequested.v2 resolve/1"]


def test_too_few_digits_are_refused_in_words() -> None:
    (reason,) = rejected(dataset={"reference": "support@0123456789a"}).reasons
    assert (reason.field, reason.value) == ("dataset.reference", "'support@0123456789a'")
    assert "12 digits" in reason.message


@pytest.mark.parametrize(
    ("field", "value"),
    [("layout", "messages"), ("columns", {"prompt": "q"}), ("system_prompt", "Be kind."), ("split", {"test_fraction": 0.2}),
     ("split", {"train": "all"})],
)  # fmt: skip
def test_settings_by_which_rows_are_read_are_refused_since_they_were_applied(field: str, value: object) -> None:
    (reason,) = rejected(dataset={"reference": NAMED, field: value}).reasons
    assert reason.field == f"dataset.{field}"
    assert "as it was stored" in reason.message


def test_what_becomes_of_rows_and_that_there_is_no_test_split_may_be_said() -> None:
    steps = [
        {"name": "prepare", "kind": "prepare"},
        {"name": "train", "kind": "train", "method": "sft", "inputs": {"dataset": "prepare.dataset"}},
    ]
    said = {"split": {"test": None}, "deduplicate": True, "on_long_row": "skip", "name": "derived"}
    decided = JobScenario().requested(dataset={"reference": NAMED, **said}, pipeline=steps)
    assert names(decided)[1:] == ["StepRequested.v2 resolve-data/1"]


def test_a_step_of_the_request_cannot_have_the_name_of_the_one_that_is_added() -> None:
    steps = [{"name": "resolve-data", "kind": "prepare"}]
    (reason,) = rejected(dataset={"reference": NAMED}, pipeline=steps).reasons
    assert reason.field == "pipeline.0.name"
