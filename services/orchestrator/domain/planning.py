"""Plans a request's pipeline as a graph of steps, or gives the reasons why it cannot be one.

A preset is only a list of steps (`presets.py`); both are planned in the same way, so an explicit pipeline can do whatever a
preset does.
"""

from collections.abc import Iterator

from schemas.reasons import Reason, shown
from schemas.recipes.feedback import ADD_RULES, NO_RULE, lacks_rules
from schemas.recipes.online import OnlineSettings
from schemas.requests import IMPORT, JobRequest, PipelineStep
from schemas.steps import PlannedStep
from services.orchestrator.domain.adapters import faults_of_adapters
from services.orchestrator.domain.full_training import faults_of_full_training
from services.orchestrator.domain.graph import SCORES, graph_of, producer_of
from services.orchestrator.domain.importing import faults_of_imports, reads_data
from services.orchestrator.domain.judges import faults_of_judges, with_judges
from services.orchestrator.domain.presets import FULL_PRESETS, PRESETS, UNMEASURED_IMPORT
from services.orchestrator.domain.registered_data import faults_of_data, with_data
from services.orchestrator.domain.starting import faults_of_start, started
from services.orchestrator.domain.step_settings import LEARNT_FROM, learners_of, sections_of, settings_of
from services.orchestrator.domain.whole_models import faults_of_models

STEPS_AT_MOST = 100
_PRESET_GRAPHS = {
    adaptation: {name: (steps, graph_of(steps)) for name, steps in presets.items()}
    for adaptation, presets in (("lora", PRESETS), ("full", FULL_PRESETS))
}
_UNMEASURED_IMPORT = UNMEASURED_IMPORT, graph_of(UNMEASURED_IMPORT)


class PlanFault(Exception):
    """The pipeline is not a graph that can be executed."""

    def __init__(self, reasons: list[Reason]) -> None:
        super().__init__("; ".join(str(reason) for reason in reasons))
        self.reasons = tuple(reasons)


def plan(request: JobRequest) -> tuple[PlannedStep, ...]:
    """Return the steps of `request` in an order that respects `needs`. Raises PlanFault with every reason found."""
    if request.pipeline == IMPORT and not reads_data(request):
        steps, graph = _UNMEASURED_IMPORT
    elif isinstance(request.pipeline, str):
        steps, graph = _PRESET_GRAPHS[request.training.adaptation][request.pipeline]
    else:
        steps = request.pipeline
        if len(steps) > STEPS_AT_MOST:
            raise PlanFault([_too_many(len(steps))])
        graph = graph_of(steps)
    reasons = [
        *graph.faults_of_names,
        *_faults_of_settings(steps, request),
        *graph.faults_of_bindings,
        *faults_of_models(steps, request),
        *faults_of_adapters(steps, request),
        *faults_of_full_training(steps, request),
        *faults_of_start(steps, request),
        *faults_of_data(request.dataset),
        *faults_of_imports(steps, request),
    ]
    if reasons:
        raise PlanFault(reasons)
    known = graph.known
    planned = tuple(
        PlannedStep(
            name=name, kind=known[name].kind, needs=graph.needs[name], inputs=known[name].inputs,
            settings=settings_of(known[name], request, known.values()),
        )
        for name in graph.order
    )  # fmt: skip
    made = with_data(with_judges(started(planned, request)), request)
    if reasons := list(faults_of_judges(steps, made)):
        raise PlanFault(reasons)
    return made


def _too_many(steps: int) -> Reason:
    return Reason(
        field="pipeline",
        value=f"{steps} steps",
        message=f"a pipeline has at most {STEPS_AT_MOST} steps",
        remedy="split it into several jobs",
    )


def _faults_of_settings(steps: tuple[PipelineStep, ...], request: JobRequest) -> Iterator[Reason]:
    """Faults of settings that are valid alone but make a step of this pipeline meaningless."""
    present = {step.kind for step in steps}
    if "evaluate" in present and request.dataset.split.test is None:
        yield Reason(
            field="dataset.split.test",
            value="null",
            message="the pipeline evaluates, but no split is held out for it",
            remedy="name the held-out split, or send a pipeline without evaluate steps",
        )
    if "evaluate" in present and "rules" in request.evaluation.metrics and not request.evaluation.rules:
        yield Reason(
            field="evaluation.rules",
            value="()",
            message="the metric `rules` has no rule to measure",
            remedy="add rules, or leave `rules` out of evaluation.metrics",
        )
    trained = sorted({step.trained_by for step in steps if step.trained_by})
    for method, settings in sections_of(trained, request).items():
        if isinstance(settings, OnlineSettings) and not settings.rewards:
            yield Reason(
                field=f"{method}.rewards",
                value="()",
                message=f"{method} learns from rewards of the model's answers, and there is none",
                remedy="add a reward, for example {kind: number_match}, or one of kind rules with rules",
            )
    for index, step in enumerate(steps):
        if step.kind == "prepare" and len({LEARNT_FROM[method] for method in learners_of(step.name, steps)}) > 1:
            yield Reason(
                field=f"pipeline.{index}",
                value=shown(step.name),
                message="of the steps that learn from its preferences, some need pairs and others labels",
                remedy="bind them to two steps of kind prepare",
            )
        if step.trained_by == SCORES and request.reward.margin_scale and _has_own_pairs(step, steps):
            yield Reason(
                field="reward.margin_scale",
                value=shown(request.reward.margin_scale),
                message=f"{step.name} learns from pairs of the data set, which have no scores of a judge",
                remedy="set it to 0, or bind the preferences of a step of kind label",
            )
    if ("compare" in present) != (request.comparison is not None):
        named = request.comparison is not None
        yield Reason(
            field="comparison",
            value=shown(request.comparison.pairs.sha256) if request.comparison else "null",
            message="no step of the pipeline compares" if named else "the pipeline compares, and no answers are named",
            remedy="leave it out, or add a step of kind compare" if named else "name the artifact with the answers",
        )
    if request.distill.teacher is None and any(step.trained_by == "distill" for step in steps):
        yield Reason(
            field="distill.teacher",
            value="null",
            message="distillation learns from a teacher, and none is named",
            remedy="name a model with the base model's tokenizer",
        )
    if present & {"label", "score", "compare"} and lacks_rules(request.feedback.judge, request.feedback.rubric):
        yield Reason(
            field="feedback.rubric.rules",
            value="()",
            message=NO_RULE,
            remedy=ADD_RULES,
        )


def _has_own_pairs(step: PipelineStep, steps: tuple[PipelineStep, ...]) -> bool:
    """Whether a step learns from the data set's own pairs."""
    producer, _ = producer_of(step.inputs.get("preferences", ""))
    return any(one.name == producer and one.kind == "prepare" for one in steps)
