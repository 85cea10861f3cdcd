"""Checks pipelines in which a step trains all weights: it makes a whole model, and continues from one, never from an adapter."""

from collections.abc import Iterator, Sequence

from schemas.reasons import Reason, shown
from schemas.requests import JobRequest, PipelineStep
from schemas.results import ADAPTER, MODEL
from services.orchestrator.domain.graph import producer_of

_FULL = "training.adaptation"


def is_full(step: PipelineStep, request: JobRequest) -> bool:
    """Whether the step trains all weights."""
    return step.trained_by == "sft" and request.training.adaptation == "full"


def faults_of_full_training(steps: Sequence[PipelineStep], request: JobRequest) -> Iterator[Reason]:
    """Yield the bindings that do not fit what a step of kind train makes or continues from."""
    if request.pipeline == "rlaif" and request.training.adaptation == "full":
        message = "the preset rlaif aligns the adapter that its first training makes"
        remedy = (
            "set it to lora, or list the steps: train, sample and label with the input model, then merge what was aligned"
        )
        yield Reason(field=_FULL, value="full", message=message, remedy=remedy)
        return
    made = {step.name: MODEL if is_full(step, request) else ADAPTER for step in steps if step.trained_by}
    for index, step in enumerate(steps):
        for name, binding in step.inputs.items():
            producer, output = producer_of(binding)
            makes = made.get(producer)
            if makes is not None and output in (ADAPTER, MODEL) and output != makes:
                yield Reason(
                    field=f"pipeline.{index}.inputs.{name}",
                    value=shown(binding),
                    message=f"{producer} makes no {output}: {_FULL} is {'full' if makes == MODEL else 'lora, or its method trains an adapter'}",
                    remedy=f"bind {producer}.{makes} as the input {makes}",
                )
        if is_full(step, request) and ADAPTER in step.inputs:
            yield Reason(
                field=f"pipeline.{index}.inputs.{ADAPTER}",
                value=shown(step.inputs[ADAPTER]),
                message=f"{_FULL} is full: all weights are trained, and an adapter is not part of them",
                remedy="merge it with a step of kind compress and bind the model, or set it to lora",
            )
