"""A job that names a registered version starts from what the registry finds, whether it is an adapter, a whole model or both."""

from collections.abc import Mapping
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import JobRejected, StepCompleted, StepRequested, StepResult
from schemas.versions import version_reference
from tests.unit.orchestrator.scenario import JobScenario, names, one_request

ADAPTER = ArtifactRef(uri="/artifacts/adapter", sha256="a" * 64, size=1)
MODEL = ArtifactRef(uri="/artifacts/model", sha256="b" * 64, size=1)


def begun(outputs: Mapping[str, ArtifactRef], base_model: str, **fields: Any) -> tuple[JobScenario, StepRequested]:
    """Return a job from a version of these artifacts, and its request of prepare."""
    job = JobScenario()
    decided = job.requested(base_model="router@candidate", **fields)
    assert names(decided)[1:] == ["StepRequested.v2 resolve/1"]
    facts = {"started_from": "router@1.2.0", "base_model": base_model, "root_model": "/models/base"}
    result = StepResult(outputs=dict(outputs), facts=facts)
    return job, one_request(job._executor(StepCompleted, "resolve", 1, result=result))


def test_an_adapter_is_what_training_continues_from_on_its_base_model() -> None:
    job, prepare = begun({"adapter": ADAPTER}, "/models/base")
    assert (prepare.step, prepare.inputs, prepare.settings.base_model) == ("prepare", {"adapter": ADAPTER}, "/models/base")
    evaluate, train = (one for one in job.completed("prepare") if isinstance(one, StepRequested))
    assert evaluate.inputs["adapter"] == train.inputs["adapter"] == ADAPTER
    assert "model" not in train.inputs
    job.completed("evaluate-base")
    after = one_request(job.completed("train"))
    assert after.inputs["adapter"] != ADAPTER, "the adapter that was trained"
    register = one_request(job.completed("evaluate"))
    assert (set(register.inputs), register.settings.base_model) == ({"adapter"}, "/models/base")


def test_a_whole_model_takes_the_place_of_the_base_model_in_every_step_that_runs_one() -> None:
    job, prepare = begun({"model": MODEL}, "router@1.2.0", pipeline="rlaif")
    assert (prepare.inputs, prepare.settings.base_model) == ({"model": MODEL}, "router@1.2.0")
    _, train = (one for one in job.completed("prepare") if isinstance(one, StepRequested))
    assert train.inputs["model"] == MODEL
    assert "adapter" not in train.inputs
    judge = one_request(job.completed("evaluate-base"))
    assert (judge.kind, judge.settings.base_model) == ("score", "/models/base")


def test_an_adapter_of_a_whole_model_comes_with_it() -> None:
    _, prepare = begun({"adapter": ADAPTER, "model": MODEL}, "other@1.0.0")
    assert prepare.inputs == {"adapter": ADAPTER, "model": MODEL}


def test_the_step_that_finds_the_version_is_only_added_by_the_orchestrator() -> None:
    steps = [{"name": "find", "kind": "resolve"}, {"name": "prepare", "kind": "prepare"}]
    (rejected,) = JobScenario().requested(pipeline=steps)
    assert isinstance(rejected, JobRejected)
    assert {reason.field for reason in rejected.reasons} == {"pipeline.0.kind"}
    (rejected,) = JobScenario().requested(base_model="router@1.0.0", pipeline=[{"name": "resolve", "kind": "prepare"}])
    assert isinstance(rejected, JobRejected)
    assert {reason.field for reason in rejected.reasons} == {"pipeline.0.name"}


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("router@1.0.0", ("router", "1.0.0")), ("support-router@candidate", ("support-router", "candidate")), ("./router@1", None),
        ("owner/name@main", None), ("/models/a@b", None), ("s3://bucket/a@b", None), ("router", None), ("router@", None),
        ("a@b@c", None), (".@1", None), ("", None),
    ],
)  # fmt: skip
def test_a_path_a_url_and_an_id_with_an_owner_are_no_versions(reference: str, found: tuple[str, str] | None) -> None:
    assert version_reference(reference) == found
