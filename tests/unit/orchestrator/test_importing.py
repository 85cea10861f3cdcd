"""A job that imports gets what its first step finds, an adapter or a whole model, and measures it where data are named."""

from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import JobRejected, StepCompleted, StepRequested, StepResult
from schemas.requests import JobRequest
from schemas.steps import ImportSettings
from services.orchestrator.domain.planning import plan
from services.orchestrator.domain.unevaluated import unevaluated
from tests.unit.orchestrator.scenario import JobScenario, a_request, names, one_request
from tests.unit.orchestrator.test_planning import PREPARE, TRAIN, a_step

ADAPTER = ArtifactRef(uri="/artifacts/adapter", sha256="a" * 64, size=1)
MODEL = ArtifactRef(uri="/artifacts/model", sha256="b" * 64, size=1)
BOTH = {"adapter": "import.adapter", "model": "import.model"}
IMPORTED: dict[str, Any] = {"pipeline": "import", "import_from": "/made/elsewhere"}
UNMEASURED: dict[str, Any] = IMPORTED | {"dataset": {"reference": "none"}}


def done(job: JobScenario, **outputs: ArtifactRef) -> list[Any]:
    """Let the import of a job make these outputs."""
    return job._executor(StepCompleted, "import", 1, result=StepResult(outputs=outputs))


def refused(**fields: Any) -> dict[str, str]:
    (rejected,) = JobScenario().requested(**fields)
    assert isinstance(rejected, JobRejected)
    return {reason.field: reason.remedy for reason in rejected.reasons}


def test_an_import_without_data_is_registered_as_it_is() -> None:
    request = a_request(**IMPORTED)
    del request["dataset"]
    read = JobRequest.model_validate(request)
    assert read.dataset.reference == "none", "every reader of the event finds the field"
    assert [step.name for step in plan(read)] == ["import", "register"]
    (remark,) = unevaluated(read, plan(read))
    assert "name a data set" in remark.remedy


@pytest.mark.parametrize("made", [{"adapter": ADAPTER}, {"model": MODEL}, {"adapter": ADAPTER, "model": MODEL}])
def test_later_steps_get_what_there_is(made: dict[str, ArtifactRef]) -> None:
    job = JobScenario()
    asked = one_request(job.requested(**UNMEASURED)[1:])
    assert asked.settings == ImportSettings(base_model="/models/base", source="/made/elsewhere")
    register = one_request(done(job, **made))
    assert (register.kind, register.inputs) == ("register", made)


def test_an_import_with_data_is_measured_before_it_is_registered() -> None:
    job = JobScenario()
    assert {name for name in names(job.requested(**IMPORTED)) if "Step" in name} == {
        "StepRequested.v2 import/1", "StepRequested.v2 prepare/1"
    }  # fmt: skip
    job.completed("prepare")
    evaluate = one_request(done(job, model=MODEL))
    assert (evaluate.kind, set(evaluate.inputs)) == ("evaluate", {"dataset", "model"})


def test_an_adapter_of_a_registered_model_is_read_with_that_model() -> None:
    job = JobScenario()
    job.requested(base_model="router@1.0.0", **UNMEASURED)
    result = StepResult(outputs={"model": MODEL}, facts={"base_model": "router@1.0.0"})
    asked = one_request(job._executor(StepCompleted, "resolve", 1, result=result))
    assert (asked.kind, asked.inputs) == ("import", {"model": MODEL})


def test_fields_of_an_import_are_refused_with_the_remedy() -> None:
    assert "folder" in refused(pipeline="import")["import_from"]
    assert "leave it out" in refused(import_from="/made/elsewhere")["import_from"]
    assert "alias" in refused(pipeline="import", import_from="router@1.0.0")["import_from"]
    assert "chat_template.jinja" in refused(chat_template="{{ x }}", **UNMEASURED)["chat_template"]


def test_a_step_that_binds_half_of_an_import_is_refused() -> None:
    steps = [a_step("import", "import"), a_step("register", "register", inputs={"model": "import.model"})]
    found = refused(pipeline=steps, import_from="/made/elsewhere")
    assert "bind both" in found["pipeline.1.inputs.model"]


def test_an_explicit_pipeline_imports_and_trains_further() -> None:
    train = TRAIN | {"inputs": TRAIN["inputs"] | BOTH}
    job = JobScenario()
    job.requested(pipeline=[a_step("import", "import"), PREPARE, train], import_from="/made/elsewhere")
    job.completed("prepare")
    (asked,) = (one for one in done(job, adapter=ADAPTER) if isinstance(one, StepRequested))
    assert set(asked.inputs) == {"dataset", "adapter"}


def test_data_must_be_named_for_a_step_that_reads_them() -> None:
    assert "name one" in refused(pipeline="sft", dataset={"reference": "none"})["dataset.reference"]
