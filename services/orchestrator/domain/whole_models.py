"""Checks that each step which binds an adapter or a whole model gets what belongs together."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from schemas.reasons import Reason, shown
from schemas.recipes.compression import CompressionMethod, CompressionSettings
from schemas.requests import JobRequest, PipelineStep
from schemas.results import ADAPTER, DATASET, MODEL
from services.orchestrator.domain.graph import producer_of
from services.orchestrator.domain.importing import imported_by

_READ_BY: Mapping[CompressionMethod, tuple[str, ...]] = {
    "merge": (ADAPTER,),
    "int8": (ADAPTER, MODEL, DATASET),
    "prune": (ADAPTER, MODEL, DATASET),
    "gguf": (ADAPTER, MODEL, DATASET),
}
"""The inputs of which each method of compression needs one. With a data set alone it compresses the base model, which the step
that prepared the data has checked."""
_LAST = ("int8", "gguf")
"""Methods whose model cannot be trained or compressed again, nor take an adapter."""


def faults_of_models(steps: tuple[PipelineStep, ...], request: JobRequest) -> Iterator[Reason]:
    """Yield why a step would get no model, two, or an adapter that was trained on another one than the step works on."""
    known = {step.name: step for step in reversed(steps)}
    for index, step in enumerate(steps):
        field = f"pipeline.{index}.inputs"
        if imported_by(step, known):
            continue
        missing = _missing(step, request)
        if missing is None and ADAPTER in step.inputs and step.inputs.get(MODEL) != (needed := _trained_on(step, known)):
            missing = _other_base(step, needed)
        if missing is None and step.kind in ("train", "compress") and MODEL in step.inputs:
            missing = _last(step, known, request)
        if missing is not None:
            yield Reason(field=field, value=shown(step.inputs), message=missing.message, remedy=missing.remedy)


class _Fault(NamedTuple):
    message: str
    remedy: str


def compression_of(step: PipelineStep, request: JobRequest) -> CompressionMethod:
    """Return the method of a step of kind compress."""
    return step.compression or request.compression.method


def compression_settings(step: PipelineStep, request: JobRequest) -> CompressionSettings:
    """Return the settings of a step of kind compress."""
    return request.compression.model_copy(update={"method": compression_of(step, request)})


def _missing(step: PipelineStep, request: JobRequest) -> _Fault | None:
    """Return which model a step lacks, or has twice."""
    if step.kind == "register" and (ADAPTER in step.inputs) == (MODEL in step.inputs):
        return _Fault("register needs either the input adapter or the input model", "bind one of both")
    if step.kind == "compress":
        needed = _READ_BY[method := compression_of(step, request)]
        if not any(name in step.inputs for name in needed):
            example = f"{{{needed[0]!r}: '<step>.{needed[0]}'}}"
            return _Fault(f"compress ({method}) needs the input {' or '.join(needed)}", f"bind it, for example {example}")
    return None


def _last(step: PipelineStep, known: Mapping[str, PipelineStep], request: JobRequest) -> _Fault | None:
    made = known.get(producer_of(step.inputs[MODEL])[0])
    if made is None or made.kind != "compress" or (method := compression_of(made, request)) not in _LAST:
        return None
    return _Fault(
        f"{shown(step.inputs[MODEL])} is stored as {method}, so it cannot be trained or compressed again",
        f"bind the model that {shown(made.name)} was made from, and make the {method} one last",
    )


def _trained_on(step: PipelineStep, known: Mapping[str, PipelineStep]) -> str | None:
    """Return the binding of the model that the step's adapter was trained on; None if it is the base model."""
    trained = known.get(producer_of(step.inputs[ADAPTER])[0])
    return trained.inputs.get(MODEL) if trained else step.inputs.get(MODEL)


def _other_base(step: PipelineStep, needed: str | None) -> _Fault:
    where = shown(needed) if needed else "the base model"
    if step.kind == "register":
        message = f"the adapter was trained on {where}, which is not the base model that it is registered with"
        return _Fault(message, "merge both with a step of kind compress, and register the model")
    remedy = f"bind {where} as the input model" if needed else "leave out the model, or bind no adapter"
    return _Fault(f"the adapter was trained on {where}, and the step works on another model", remedy)
