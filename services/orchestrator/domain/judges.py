"""Lets registered reward models judge: the registry finds each in a step of kind resolve, whose result the steps that ask it read."""

from collections.abc import Iterator, Mapping, Sequence

from schemas.reasons import Reason, shown
from schemas.recipes.feedback import JudgeSettings
from schemas.recipes.methods import MethodSettings
from schemas.recipes.online import OnlineSettings
from schemas.requests import PipelineStep
from schemas.steps import (
    CompareSettings,
    LabelSettings,
    PlannedStep,
    PrepareSettings,
    ResolveSettings,
    ScoreSettings,
    StepSettings,
    TrainSettings,
)
from schemas.versions import version_reference

RESOLVE_JUDGE = "resolve-judge"
"""The name of the step; a second one has a number behind it."""


def with_judges(plan: tuple[PlannedStep, ...]) -> tuple[PlannedStep, ...]:
    """Return the plan with a first step for each registered reward model that judges, which the steps that ask it need."""
    found, asking = dict[str, PlannedStep](), list[PlannedStep]()
    for step in plan:
        needs = list[str]()
        for field, reference in _registered(step.settings):
            if reference not in found:
                name = f"{RESOLVE_JUDGE}-{len(found) + 1}" if found else RESOLVE_JUDGE
                settings = ResolveSettings(base_model=reference, purpose="scores", field=field)
                found[reference] = PlannedStep(name=name, kind="resolve", settings=settings)
            needs.append(found[reference].name)
        asking.append(step.model_copy(update={"needs": tuple(dict.fromkeys((*needs, *step.needs)))}) if needs else step)
    return (*found.values(), *asking)


def faults_of_judges(steps: Sequence[PipelineStep], plan: tuple[PlannedStep, ...]) -> Iterator[Reason]:
    """Yield a step of the request with the name of one that is added."""
    added = {step.name for step in plan if isinstance(step.settings, ResolveSettings)}
    for index, step in enumerate(steps):
        if step.name in added:
            message = "the step that finds a registered version or data set which the request names has this name"
            yield Reason(
                field=f"pipeline.{index}.name", value=shown(step.name), message=message, remedy="give it another name"
            )


def _registered(settings: StepSettings) -> Iterator[tuple[str, str]]:
    """Yield the field and the reference of each judge that is a registered version."""
    for field, judge in _judges(settings):
        if judge.reward_model is not None and version_reference(judge.reward_model):
            yield f"{field}.judge.reward_model", judge.reward_model


def _judges(settings: StepSettings) -> Iterator[tuple[str, JudgeSettings]]:
    match settings:
        case LabelSettings() | ScoreSettings() | CompareSettings():
            yield "feedback", settings.feedback.judge
        case PrepareSettings():
            yield from _of_rewards(settings.methods)
        case TrainSettings(section=str(section)) if settings.method_settings is not None:
            yield from _of_rewards({section: settings.method_settings})


def _of_rewards(methods: Mapping[str, MethodSettings]) -> Iterator[tuple[str, JudgeSettings]]:
    for section, method in methods.items():
        for number, reward in enumerate(method.rewards if isinstance(method, OnlineSettings) else ()):
            if reward.feedback is not None:
                yield f"{section}.rewards.{number}.feedback", reward.feedback.judge
