"""Derives a version's lineage from the results of the job's steps, by rules that do not depend on the names of steps."""

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import JsonValue

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepRequested, StepResult
from schemas.models import Imported, Lineage
from schemas.results import (
    ADAPTER,
    BASE_MODEL_SHA256,
    COMPRESSION,
    DATASET_NAME,
    DATASET_SHA256,
    IMPORTED_AT,
    IMPORTED_FROM,
    IMPORTED_REVISION,
    LICENCE,
    MODEL,
    PREDICTIONS,
    SCORES_ANSWERS,
    SNAPSHOT_SHA256,
    STARTED_FROM,
)
from schemas.steps import RegisterSettings

ANSWERS, SCORES = "answers", "scores"
"""What a version is for."""
_HELD_OUT = "held_out_"


def lineage_of(request: StepRequested, settings: RegisterSettings, configuration: Mapping[str, JsonValue]) -> Lineage:
    """Return the lineage of the version that `request` asks to register."""
    imported = _imported(request)
    own = imported is not None and ADAPTER not in request.inputs
    return Lineage(
        job_id=request.job_id,
        step=request.step,
        requester=request.requester,
        base_model=settings.base_model,
        base_model_sha256=request.inputs[MODEL].sha256 if own else _fact(request.results, BASE_MODEL_SHA256),
        dataset_sha256=_fact(request.results, DATASET_SHA256),
        started_from=_fact(request.results, STARTED_FROM),
        dataset=_dataset(request.results),
        configuration=dict(configuration),
        results=request.results,
        imported=imported,
    )


def _imported(request: StepRequested) -> Imported | None:
    """Return where the files come from that the step registers, if a step imported them. A whole model is its own base model."""
    wanted = request.inputs.get(ADAPTER) or request.inputs[MODEL]
    for result in request.results.values():
        made = result.outputs.get(ADAPTER) or result.outputs.get(MODEL)
        if IMPORTED_FROM in result.facts and made is not None and made.sha256 == wanted.sha256:
            facts = result.facts
            return Imported(
                source=facts[IMPORTED_FROM],
                revision=facts.get(IMPORTED_REVISION),
                at=facts.get(IMPORTED_AT),
                licence=facts.get(LICENCE),
            )
    return None


class Artifact(NamedTuple):
    """What a version is made of."""

    kind: str
    """The name of the output that it is: adapter or model."""
    ref: ArtifactRef


def metrics_of(artifact: Artifact, results: Mapping[str, StepResult]) -> dict[str, float | None]:
    """Return the metrics of the evaluations of `artifact`, of the judges' scores of their predictions, and of the compression
    that made it. A reward model writes no answers that could be evaluated; its metrics are those of its training on held-out
    pairs."""
    evaluations = evaluations_of(artifact, results)
    predictions = {result.outputs[PREDICTIONS].sha256 for result in evaluations}
    scores = [result for result in results.values() if result.inputs.get(PREDICTIONS) in predictions]
    compressed = _compression(artifact, results)
    of = (*([compressed] if compressed else ()), *evaluations, *scores)
    found = {name: value for result in of for name, value in result.metrics.items()}
    return found | _of_reward_model(artifact.ref, results)


def is_evaluated(artifact: Artifact, results: Mapping[str, StepResult]) -> bool:
    """Return whether a step before the registration measured `artifact` on held-out rows, or a reward model on held-out pairs."""
    return bool(evaluations_of(artifact, results) or _of_reward_model(artifact.ref, results))


def purpose_of(lineage: Lineage) -> str:
    """Return whether the version writes `answers`, or gives `scores`, as the recipe says that is stored with its weights."""
    return SCORES if lineage.configuration.get(SCORES_ANSWERS) == "true" else ANSWERS


def parent_of(artifact: Artifact, results: Mapping[str, StepResult]) -> Artifact | None:
    """Return the adapter or model from which a step of kind compress made `artifact`; None if none did, or from the base model."""
    compressed = _compression(artifact, results)
    if compressed is None:
        return None
    for kind in (ADAPTER, MODEL):
        wanted = compressed.inputs.get(kind)
        made = (result.outputs.get(kind) for result in results.values())
        if found := next((ref for ref in made if ref and ref.sha256 == wanted), None):
            return Artifact(kind, found)
    return None


def evaluations_of(artifact: Artifact, results: Mapping[str, StepResult]) -> list[StepResult]:
    """Return the results of the steps that measured `artifact` on held-out rows."""
    return [result for result in results.values() if PREDICTIONS in result.outputs and _is_about(result, artifact)]


def _is_about(result: StepResult, artifact: Artifact) -> bool:
    """Whether a step read the artifact; an adapter on a model is another model than that model alone."""
    read = {name: sha256 for name, sha256 in result.inputs.items() if name in (ADAPTER, MODEL)}
    return read.get(artifact.kind) == artifact.ref.sha256 and not (artifact.kind == MODEL and ADAPTER in read)


def _compression(artifact: Artifact, results: Mapping[str, StepResult]) -> StepResult | None:
    if artifact.kind != MODEL:
        return None
    made = (result for result in results.values() if COMPRESSION in result.facts and MODEL in result.outputs)
    return next((result for result in made if result.outputs[MODEL].sha256 == artifact.ref.sha256), None)


def _fact(results: Mapping[str, StepResult], name: str) -> str | None:
    return next((result.facts[name] for result in results.values() if name in result.facts), None)


def _dataset(results: Mapping[str, StepResult]) -> str | None:
    """The registered data set that the job's first preparation stored, `name@digest`; None if it says none."""
    name, digest = _fact(results, DATASET_NAME), _fact(results, SNAPSHOT_SHA256)
    return f"{name}@{digest}" if name and digest else None


def _of_reward_model(adapter: ArtifactRef, results: Mapping[str, StepResult]) -> dict[str, float | None]:
    made = (result for result in results.values() if result.outputs.get(ADAPTER) == adapter)
    scoring = [result for result in made if result.facts.get(SCORES_ANSWERS) == "true"]
    return {name: value for one in scoring for name, value in one.metrics.items() if name.startswith(_HELD_OUT)}
