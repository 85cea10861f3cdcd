"""Lets a job learn from a registered data set: the registry finds it in a step of kind resolve, whose outputs `prepare` reads."""

from collections.abc import Iterator

from schemas.datasets import PREFIX_AT_LEAST, dataset_reference
from schemas.reasons import Reason, shown
from schemas.recipes.dataset import DatasetSettings
from schemas.requests import JobRequest
from schemas.results import DATASET, PREFERENCES
from schemas.steps import PlannedStep, ResolveSettings

RESOLVE_DATA = "resolve-data"
"""The name of the step."""
_FIELD = "dataset.reference"
_APPLIED = ("layout", "columns", "split", "system_prompt")
"""Settings by which rows are read, which were applied when the data set was stored."""


def faults_of_data(settings: DatasetSettings) -> Iterator[Reason]:
    """Yield the faults of settings that name a registered data set; none for other data."""
    found = dataset_reference(settings)
    if found is None:
        return
    if len(found.digest) < PREFIX_AT_LEAST:
        message = f"a registered data set is named by at least the first {PREFIX_AT_LEAST} digits of its digest"
        remedy = "write more of them, as neuroweaver datasets list shows them; write ./ before a path"
        yield Reason(field=_FIELD, value=shown(settings.reference), message=message, remedy=remedy)
    plain = DatasetSettings(reference=settings.reference)
    without_test = plain.split.model_copy(update={"test": None})
    for name in _APPLIED:
        value = getattr(settings, name)
        if value != getattr(plain, name) and value != without_test:
            message = "a registered data set is read as it was stored"
            remedy = "leave it out" if name != "split" else "leave it out, or set only split.test, to null"
            yield Reason(field=f"dataset.{name}", value=shown(value), message=message, remedy=remedy)


def with_data(plan: tuple[PlannedStep, ...], request: JobRequest) -> tuple[PlannedStep, ...]:
    """Return the plan with a first step that finds the registered data set which the job names; as it is if it names none."""
    if dataset_reference(request.dataset) is None or all(step.kind != "prepare" for step in plan):
        return plan
    settings = ResolveSettings(base_model=request.base_model, field=_FIELD, dataset=request.dataset.reference)
    return (PlannedStep(name=RESOLVE_DATA, kind="resolve", settings=settings), *map(_behind, plan))


def _behind(step: PlannedStep) -> PlannedStep:
    if step.kind != "prepare":
        return step
    found = {name: f"{RESOLVE_DATA}.{name}" for name in (DATASET, PREFERENCES)}
    return step.model_copy(update={"needs": (RESOLVE_DATA, *step.needs), "inputs": {**step.inputs, **found}})
