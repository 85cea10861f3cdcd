"""Estimates the memory of each training of a request before a job is started, for the device of this machine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from schemas.reasons import Reason
from schemas.recipes.distill import DistillSettings
from schemas.recipes.methods import MethodSettings
from schemas.recipes.sampled import SampledSettings
from schemas.requests import JobRequest
from schemas.steps import PlannedStep, TrainSettings
from services.chassis.executor.child import UserFault
from services.language_models.precision import device
from services.trainer.modelling.architecture import architecture_of
from services.trainer.modelling.base_files import BaseFault, base_fault
from services.trainer.modelling.memory import MemoryEstimate
from services.trainer.modelling.tracing import refuse_unrunnable
from services.trainer.steps.memory import available, batch_of, estimate_of, rows_at_once


class StepMemory(NamedTuple):
    """The estimate of one step of kind train."""

    step: str
    rows: int
    """Examples in memory at once."""
    length: int
    """Tokens of each, at most."""
    bytes: int
    parts: Mapping[str, int]


class Estimated(NamedTuple):
    """The estimates of a request's trainings, with what this machine has."""

    device: str
    available: int
    steps: Sequence[StepMemory]


def estimate(request: JobRequest, plan: Sequence[PlannedStep], base: Path, teacher: Path | None) -> Estimated:
    """Return the estimates, with all tokens of the longest rows supervised. Raises UserFault for a base model that is refused.

    `teacher` is the folder of the teacher, if a step learns from one.
    """
    try:
        architecture = architecture_of(base)
        refuse_unrunnable(architecture.empty())
        found = []
        for step in plan:
            settings = _settings(step)
            if settings is not None:
                rows = rows_at_once(settings.optimiser)
                batch = batch_of(settings, rows, settings.max_length, _learnt(settings))
                beside = architecture_of(teacher) if teacher and isinstance(settings, DistillSettings) else None
                estimated = estimate_of(architecture, settings, batch, beside)
                found.append(_step(step.name, rows, settings.max_length, estimated))
    except BaseFault as fault:
        raise base_fault(request.base_model, fault.message, fault.remedy) from fault
    except UserFault:
        raise
    except Exception as error:  # an architecture whose forward pass needs values raises whatever its code raises
        message = f"the forward pass of this architecture cannot be traced ({type(error).__name__})"
        remedy = "start the job: it halves the examples at a time when memory runs out"
        raise UserFault(Reason(field="base_model", message=message, remedy=remedy)) from error
    return Estimated(device().type, available(), found)


def learns_from_teacher(step: PlannedStep) -> bool:
    """Whether a step is a distillation."""
    return isinstance(_settings(step), DistillSettings)


def _learnt(settings: MethodSettings) -> int:
    """Return the most tokens of an example that are supervised."""
    return settings.max_new_tokens if isinstance(settings, SampledSettings) else settings.max_length


def _settings(step: PlannedStep) -> MethodSettings | None:
    return step.settings.method_settings if isinstance(step.settings, TrainSettings) else None


def _step(name: str, rows: int, length: int, found: MemoryEstimate) -> StepMemory:
    return StepMemory(name, rows, length, found.total, {part: getattr(found, part) for part in found.PARTS})
