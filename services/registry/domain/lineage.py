"""Derives a version's lineage from the results of the job's steps, by rules that do not depend on the names of steps."""

from collections.abc import Mapping

from pydantic import JsonValue

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepRequested, StepResult
from schemas.models import Lineage
from schemas.results import ADAPTER, BASE_MODEL_SHA256, DATASET_SHA256, MODEL, PREDICTIONS, SCORES_ANSWERS
from schemas.steps import RegisterSettings

ANSWERS, SCORES = "answers", "scores"
"""What a version is for."""
_HELD_OUT = "held_out_"


def lineage_of(request: StepRequested, settings: RegisterSettings, configuration: Mapping[str, JsonValue]) -> Lineage:
    """Return the lineage of the version that `request` asks to register."""
    return Lineage(
        job_id=request.job_id,
        step=request.step,
        requester=request.requester,
        base_model=settings.base_model,
        base_model_sha256=_fact(request.results, BASE_MODEL_SHA256),
        dataset_sha256=_fact(request.results, DATASET_SHA256),
        configuration=dict(configuration),
        results=request.results,
    )


def metrics_of(name: str, artifact: ArtifactRef, results: Mapping[str, StepResult]) -> dict[str, float | None]:
    """Return the metrics of the evaluations of `artifact`, and of the judges' scores of their predictions.

    `name` is that of the input which it is, adapter or model; an adapter that was evaluated on a model is another model.
    A reward model writes no answers that could be evaluated; its metrics are those of its training on held-out pairs.
    """
    made = [
        result
        for result in results.values()
        if result.inputs.get(name) == artifact.sha256 and not (name == MODEL and ADAPTER in result.inputs)
    ]
    evaluations = [result for result in made if PREDICTIONS in result.outputs]
    predictions = {result.outputs[PREDICTIONS].sha256 for result in evaluations}
    scores = [result for result in results.values() if result.inputs.get(PREDICTIONS) in predictions]
    found = {name: value for result in (*evaluations, *scores) for name, value in result.metrics.items()}
    return found | _of_reward_model(artifact, results)


def purpose_of(lineage: Lineage) -> str:
    """Return whether the version writes `answers`, or gives `scores`, as the recipe says that is stored with its weights."""
    return SCORES if lineage.configuration.get(SCORES_ANSWERS) == "true" else ANSWERS


def _fact(results: Mapping[str, StepResult], name: str) -> str | None:
    return next((result.facts[name] for result in results.values() if name in result.facts), None)


def _of_reward_model(adapter: ArtifactRef, results: Mapping[str, StepResult]) -> dict[str, float | None]:
    made = (result for result in results.values() if result.outputs.get(ADAPTER) == adapter)
    scoring = [result for result in made if result.facts.get(SCORES_ANSWERS) == "true"]
    return {name: value for one in scoring for name, value in one.metrics.items() if name.startswith(_HELD_OUT)}
