"""Refuses settings of an adapter where training continues from one, which keeps the options that it was made with."""

from collections.abc import Iterator, Mapping, Sequence

from schemas.reasons import Reason, shown
from schemas.recipes.lora import LoraSettings
from schemas.requests import JobRequest, PipelineStep
from schemas.results import ADAPTER
from schemas.steps import TrainSettings
from services.orchestrator.domain.graph import producer_of
from services.orchestrator.domain.step_settings import settings_of


def faults_of_adapters(steps: Sequence[PipelineStep], request: JobRequest) -> Iterator[Reason]:
    """Yield the `lora` of a method that neither is the default nor made the adapter that its step continues from."""
    known = {step.name: step for step in steps}
    found: dict[str, Reason] = {}
    for step in steps:
        if not step.trained_by or ADAPTER not in step.inputs:
            continue
        section, asked = _lora(step, request, steps)
        _, made = _lora(_maker(step, known), request, steps)
        if asked not in (None, LoraSettings(), made):
            found[section] = Reason(
                field=f"{section}.lora",
                value=shown(asked.model_dump(exclude_defaults=True) if asked else None),
                message=f"step {step.name} continues from an adapter, which keeps the options that it was made with",
                remedy="leave it out, or set it as for the step that makes the adapter",
            )
    yield from found.values()


def _maker(step: PipelineStep, known: Mapping[str, PipelineStep]) -> PipelineStep:
    """Return the step that made the adapter which `step` continues from, however far back."""
    passed = {step.name}
    while (binding := step.inputs.get(ADAPTER)) is not None:
        before = known.get(producer_of(binding)[0])
        if before is None or before.name in passed:
            return step
        passed.add(before.name)
        step = before
    return step


def _lora(step: PipelineStep, request: JobRequest, steps: Sequence[PipelineStep]) -> tuple[str, LoraSettings | None]:
    """Return the request's section for the step's method, and the settings of the adapter in it."""
    settings = settings_of(step, request, steps) if step.trained_by else None
    if not isinstance(settings, TrainSettings):
        return step.kind, None
    return settings.section or step.kind, getattr(settings.method_settings, "lora", None)
