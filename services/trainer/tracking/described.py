"""Describes a step as MLflow's users look for it: its settings as parameters, what it comes from as tags, its outcome."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from schemas.jobs import StepFault, StepRequested, StepResult
from schemas.progress import StepProgressed
from schemas.results import BASE_MODEL, STARTED_FROM
from services.chassis.process.redaction import redacted

_TEXT = 500
"""Longer values are cut; servers before MLflow 2.8 accept no longer ones."""


def name_of(request: StepRequested) -> str:
    """Return the name of the run of a step; all attempts at the step have the same."""
    return f"{request.job_id}/{request.step}"


def params_of(request: StepRequested) -> dict[str, str]:
    """Return the settings of a step under dotted names, as `training.optimiser.learning_rate`."""
    return {name: _text(value) for name, value in _leaves("", request.settings.model_dump(mode="json", exclude_none=True))}


def tags_of(request: StepRequested) -> dict[str, str]:
    """Return what is known of an attempt when it begins."""
    facts = {name: value for result in request.results.values() for name, value in result.facts.items()}
    origin = {name: facts[name] for name in (STARTED_FROM, BASE_MODEL) if name in facts}
    inputs = {f"input.{name}_sha256": ref.sha256 for name, ref in request.inputs.items()}
    known = {
        "job_id": request.job_id, "step": request.step, "kind": request.kind, "attempt": str(request.attempt),
        "requester": request.requester, **origin, **inputs,
    }  # fmt: skip
    return {**_ours(known), "mlflow.user": _text(request.requester), "mlflow.source.name": "neuroweaver"}


def result_tags(result: StepResult) -> dict[str, str]:
    """Return what is known once a step is completed: its facts, such as the digest of the recipe, and what it made."""
    outputs = {f"output.{name}_sha256": ref.sha256 for name, ref in result.outputs.items()}
    return _ours({**result.facts, **outputs})


def result_metrics(result: StepResult) -> dict[str, float]:
    """Return the metrics of a result, apart from the curves: the loss at its end is `result.loss`."""
    return _finite({f"result.{name}": value for name, value in result.metrics.items() if value is not None})


def fault_tags(fault: StepFault) -> dict[str, str]:
    """Return why an attempt failed."""
    return _ours({"fault.cause": fault.cause, "fault.message": fault.message})


def machine_values(progress: StepProgressed) -> dict[str, float]:
    """Return the memory of the process, and memory and utilisation of its GPUs."""
    values = {} if progress.memory_bytes is None else {"memory_bytes": float(progress.memory_bytes)}
    for reading in progress.devices:
        if reading.device != "cpu":
            values[f"{reading.device}.memory_used_bytes"] = float(reading.memory_used_bytes)
            if reading.utilisation is not None:
                values[f"{reading.device}.utilisation"] = reading.utilisation
    return values


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """Return the values that are numbers; stores differ in what they do with others."""
    return {name: float(value) for name, value in values.items() if math.isfinite(value)}


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{prefix}.{name}" if prefix else name, inner)
    else:
        yield prefix, value


def _ours(tags: Mapping[str, str]) -> dict[str, str]:
    return {f"neuroweaver.{name}": _text(value) for name, value in tags.items()}


def _text(value: object) -> str:
    text = redacted(str(value))
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"
