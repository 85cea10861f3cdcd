"""Says which steps of a plan register a version that no step before them has measured. Pure."""

from collections.abc import Iterator, Mapping

from schemas.reasons import Reason, shown
from schemas.requests import IMPORT, JobRequest
from schemas.results import ADAPTER, MODEL
from schemas.steps import PlannedStep, TrainSettings
from services.orchestrator.domain.graph import ancestors, producer_of


def unevaluated(request: JobRequest, plan: tuple[PlannedStep, ...]) -> Iterator[Reason]:
    """Yield each register step whose version will have no evaluation. It is legal, but seldom meant: the metrics of a version are
    those of the steps before its registration."""
    steps = {step.name: step for step in plan}
    for step in plan:
        if step.kind != "register":
            continue
        before = [steps[name] for name in ancestors(plan, step.name)]
        if any(_measures(other, step) for other in before) or _measured_in_training(step, steps, request):
            continue
        later = [other.name for other in plan if _measures(other, step)]
        yield Reason(
            field=_field(step, request),
            value=shown(list(step.needs)),
            message=f"no step that evaluates what {step.name} registers comes before it, so the version will have no metrics of an "
            "evaluation and be shown as not evaluated",
            remedy=_remedy(later, request),
        )


def _remedy(later: list[str], request: JobRequest) -> str:
    if later:
        return f"add {later[0]} to its needs"
    if request.pipeline == IMPORT:
        return "name a data set, on whose held-out rows it is measured"
    return "add a step of kind evaluate to the pipeline, and to its needs"


def _measures(other: PlannedStep, register: PlannedStep) -> bool:
    """Whether a step evaluates what another registers; an adapter on a model is another model than that model alone."""
    return other.kind == "evaluate" and _made(other.inputs) == _made(register.inputs)


def _made(inputs: Mapping[str, str]) -> str | None:
    return inputs.get(ADAPTER, inputs.get(MODEL))


def _measured_in_training(register: PlannedStep, steps: Mapping[str, PlannedStep], request: JobRequest) -> bool:
    """Whether it is a reward model that its training measures on held-out pairs of the data set."""
    maker = steps.get(producer_of(_made(register.inputs) or "")[0])
    if maker is None or not isinstance(maker.settings, TrainSettings) or maker.settings.section != "reward":
        return False
    pairs = steps.get(producer_of(maker.inputs["preferences"])[0])
    return pairs is not None and pairs.kind == "prepare" and request.dataset.split.test is not None


def _field(step: PlannedStep, request: JobRequest) -> str:
    names = [] if isinstance(request.pipeline, str) else [one.name for one in request.pipeline]
    return f"pipeline.{names.index(step.name)}.needs" if step.name in names else "pipeline"
