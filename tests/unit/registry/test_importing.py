"""A version that was made elsewhere says so in its lineage, is numbered like any other, and passes no gate that asks for evidence."""

from typing import Any

from schemas.artifacts import ArtifactRef
from schemas.gates import Gate
from schemas.jobs import StepResult
from schemas.models import Imported, Lineage, ModelRegistered
from schemas.steps import RegisterSettings
from services.registry.domain.gates import checked
from services.registry.domain.lineage import lineage_of
from tests.steps import request
from tests.unit.registry.test_models import ADAPTER, RegistryScenario, a_lineage, wanted

MODEL = ArtifactRef(uri="/m", sha256="2" * 64, size=1)
FACTS = {
    "imported_from": "owner/model",
    "imported_revision": "abc",
    "imported_at": "2030-01-01T00:00:00+00:00",
    "licence": "mit",
}
ORIGIN = Imported(source="owner/model", revision="abc", at="2030-01-01T00:00:00+00:00", licence="mit")


def lineage(job: str, inputs: dict[str, ArtifactRef], outputs: dict[str, ArtifactRef], **facts: str) -> Lineage:
    """Return the lineage of what a job registers whose first step imported `outputs`."""
    settings = RegisterSettings(base_model="base", model="router")
    results = {"import": StepResult(outputs=outputs, facts={**FACTS, **facts})}
    asked = request(job, "register", kind="register", settings=settings, inputs=inputs, results=results)
    return lineage_of(asked, settings, {})


def whole(job: str, model: ArtifactRef = MODEL) -> Lineage:
    return lineage(job, {"model": model}, {"model": model})


def test_the_lineage_says_where_the_files_come_from() -> None:
    adapter = lineage("job", {"adapter": ADAPTER}, {"adapter": ADAPTER}, base_model_sha256="b" * 64)
    assert (adapter.imported, adapter.base_model_sha256) == (ORIGIN, "b" * 64)
    assert whole("job").imported == ORIGIN
    assert whole("job").base_model_sha256 == MODEL.sha256, "a whole model is its own base"


def test_an_adapter_is_what_is_imported_of_an_adapter_with_its_model() -> None:
    both = {"adapter": ADAPTER, "model": MODEL}
    assert lineage("job", both, both).imported == ORIGIN
    assert lineage("job", {"model": MODEL}, both).imported is None, "the model beside it was made by another job"


def test_what_a_job_made_from_an_import_is_not_imported() -> None:
    trained = ADAPTER.model_copy(update={"sha256": "3" * 64})
    assert lineage("job", {"adapter": trained}, {"adapter": ADAPTER}).imported is None


def test_the_same_files_again_are_a_repetition_and_others_are_another_base() -> None:
    registry = RegistryScenario()
    other = MODEL.model_copy(update={"sha256": "4" * 64})
    numbers = [registry.register(one, alias=None) for one in (whole("a"), whole("b"), whole("c", other))]
    assert numbers == ["1.0.0", "1.0.1", "2.0.0"]


def test_without_an_evaluation_its_gates_are_inconclusive() -> None:
    gate = Gate(metric="exact_match", comparison="at_least", threshold=0.5)
    assert checked([gate], wanted(whole("job")), None)[0] == "inconclusive"


def test_a_version_of_an_earlier_release_was_made_by_its_job() -> None:
    known: dict[str, Any] = wanted(a_lineage()).model_dump(mode="json")
    del known["lineage"]["imported"]
    assert ModelRegistered.model_validate(known).lineage.imported is None
