"""Lets a job start from a registered version: the registry finds it in a step of kind resolve, whose outputs the others take.

Which of them there are, an adapter, a whole model or both, is known when that step is completed. So each later step binds both, and
gets what there is.
"""

from collections.abc import Iterator, Mapping, Sequence

from schemas.jobs import StepResult
from schemas.reasons import Reason, shown
from schemas.requests import IMPORT, JobRequest, PipelineStep
from schemas.results import ADAPTER, BASE_MODEL, MODEL, ROOT_MODEL
from schemas.steps import PlannedStep, ResolveSettings, StepSettings
from schemas.versions import version_reference

RESOLVE = "resolve"
"""The kind and the name of the step."""
_ON_A_MODEL = ("prepare", "train", "sample", "evaluate", "compress", IMPORT)
_JUDGED = ("label", "score", "compare")
"""Kinds that read the base model as the judge only."""


def faults_of_start(steps: Sequence[PipelineStep], request: JobRequest) -> Iterator[Reason]:
    """Yield a step that takes the kind or the name of the one that is added."""
    for index, step in enumerate(steps):
        if step.kind == RESOLVE:
            message, remedy = "the step is added where base_model names a registered version", "leave it out"
            yield Reason(field=f"pipeline.{index}.kind", value=shown(step.kind), message=message, remedy=remedy)
        elif step.name == RESOLVE and version_reference(request.base_model):
            message = "the step that finds the version which base_model names has this name"
            yield Reason(
                field=f"pipeline.{index}.name", value=shown(step.name), message=message, remedy="give it another name"
            )


def started(steps: tuple[PlannedStep, ...], request: JobRequest) -> tuple[PlannedStep, ...]:
    """Return the plan with a first step that finds the version which `base_model` names; as it is if it names none."""
    if version_reference(request.base_model) is None:
        return steps
    found = PlannedStep(name=RESOLVE, kind=RESOLVE, settings=ResolveSettings(base_model=request.base_model))
    return (found, *map(_behind, steps))


def _behind(step: PlannedStep) -> PlannedStep:
    inputs = dict(step.inputs)
    if step.kind in _ON_A_MODEL and MODEL not in inputs:
        if ADAPTER not in inputs:
            inputs[ADAPTER] = f"{RESOLVE}.{ADAPTER}"
        inputs[MODEL] = f"{RESOLVE}.{MODEL}"
    return step.model_copy(update={"needs": (RESOLVE, *step.needs), "inputs": inputs})


def is_left_out(producer: PlannedStep, output: str, result: StepResult) -> bool:
    """Whether an input is not there because the version, or what was imported, does not have it."""
    return producer.kind in (RESOLVE, IMPORT) and output not in result.outputs


def settled(settings: StepSettings, results: Mapping[str, StepResult]) -> StepSettings:
    """Return the settings with the base model of the version that the job starts from, if it does."""
    facts = results[RESOLVE].facts if RESOLVE in results else {}
    name = ROOT_MODEL if settings.kind in _JUDGED else BASE_MODEL
    return settings.model_copy(update={"base_model": facts[name]}) if name in facts else settings
