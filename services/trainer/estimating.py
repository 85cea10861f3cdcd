"""Estimates the memory of each step of a request that loads a model, before a job is started, for the device of this machine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from schemas.reasons import Reason
from schemas.recipes.distill import DistillSettings
from schemas.recipes.feedback import FeedbackSettings
from schemas.recipes.methods import MethodSettings
from schemas.recipes.sampled import SampledSettings
from schemas.requests import JobRequest
from schemas.results import ADAPTER, DATASET
from schemas.steps import (
    CompressSettings,
    EvaluateSettings,
    LabelSettings,
    PlannedStep,
    PrepareSettings,
    SampleSettings,
    ScoreSettings,
    TrainSettings,
)
from services.chassis.executor.child import UserFault
from services.language_models.precision import device
from services.trainer.compression.weights import weights_size
from services.trainer.modelling.architecture import Architecture, architecture_of
from services.trainer.modelling.base_files import BaseFault, base_fault
from services.trainer.modelling.judge_memory import Judged
from services.trainer.modelling.tracing import refuse_unrunnable
from services.trainer.steps.inference_memory import (
    LoadedFiles,
    compression_memory,
    evaluation_memory,
    judging_memory,
    sampling_memory,
)
from services.trainer.steps.memory import available, batch_of, estimate_of, rows_at_once
from services.trainer.steps.needs import sampled_bytes


class StepMemory(NamedTuple):
    """The estimate of one step that loads a model."""

    step: str
    kind: str
    rows: int
    """Examples, answers or texts in memory at once; 0 for a step that computes on none."""
    length: int
    """Tokens of each, at most."""
    bytes: int
    parts: Mapping[str, int]


class Estimated(NamedTuple):
    """The estimates of a request's steps, with what this machine has."""

    device: str
    available: int
    steps: Sequence[StepMemory]


class Folders(NamedTuple):
    """The models that the steps of a request load, on this machine."""

    base: Path
    teacher: Path | None = None
    """Null if no step learns from one."""
    judge: Path | None = None
    """The judge's own model, or the base model of a reward model; null: the request's base model."""


def estimate(request: JobRequest, plan: Sequence[PlannedStep], folders: Folders) -> Estimated:
    """Return the estimates, with all tokens of the longest rows supervised. Raises UserFault for a base model that is refused."""
    try:
        models = _Models(folders, _longest_row(request, plan))
        found = [step for one in plan if (step := _step(one, request, models)) is not None]
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
    return isinstance(step.settings, TrainSettings) and isinstance(step.settings.method_settings, DistillSettings)


def judges_with_model(step: PlannedStep) -> bool:
    """Whether a step asks a judge that loads a model."""
    return isinstance(step.settings, LabelSettings | ScoreSettings) and step.settings.feedback.judge.kind == "local"


class _Models:
    """The models of a request, and the tokens of its longest row."""

    def __init__(self, folders: Folders, row: int) -> None:
        self.row, self._folders = row, folders
        self.base = architecture_of(folders.base)
        refuse_unrunnable(self.base.empty())
        self.teacher = None if folders.teacher is None else architecture_of(folders.teacher)

    def loaded(self, step: PlannedStep) -> LoadedFiles:
        """Return the base model as a step loads it; a model that an earlier step makes counts as the base model."""
        return LoadedFiles(self.base, weights_size(self._folders.base), ADAPTER in step.inputs)

    def judge(self) -> LoadedFiles:
        """Return the model of a judge. Raises UserFault if it is none that writes texts."""
        folder = self._folders.judge
        if folder is None:
            return LoadedFiles(self.base, weights_size(self._folders.base))
        try:
            return LoadedFiles(architecture_of(folder), weights_size(folder))
        except BaseFault as fault:
            raise UserFault(Reason(field="feedback.judge", message=fault.message, remedy=fault.remedy)) from fault


def _longest_row(request: JobRequest, plan: Sequence[PlannedStep]) -> int:
    """Return the tokens up to which `prepare` keeps rows."""
    kept = [step.settings.max_length for step in plan if isinstance(step.settings, PrepareSettings)]
    return max(kept, default=request.training.max_length)


def _step(step: PlannedStep, request: JobRequest, models: _Models) -> StepMemory | None:
    """Return the estimate of a step; None for one that loads no model."""
    match step.settings:
        case TrainSettings(method_settings=settings):
            return None if settings is None else _training(step, settings, models.base, models.teacher)
        case SampleSettings(sampling=sampling):
            batch, found = sampling_memory(models.loaded(step), sampling, models.row)
        case EvaluateSettings(evaluation=evaluation):
            batch, found = evaluation_memory(models.loaded(step), evaluation, models.row)
        case LabelSettings(feedback=feedback) if judges_with_model(step):
            return _judging(step, feedback, models, Judged(models.row, request.sampling.max_new_tokens, 2))
        case ScoreSettings(feedback=feedback) if judges_with_model(step):
            return _judging(step, feedback, models, Judged(models.row, request.evaluation.max_new_tokens, 1))
        case CompressSettings(compression=compression):
            row = models.row if DATASET in step.inputs else None
            compared, found = compression_memory(models.loaded(step), compression, row)
            return StepMemory(step.name, step.kind, compared.rows, compared.length, found.total, found.parts)
        case _:
            return None
    length = batch.prompt_length + batch.answer_length
    return StepMemory(step.name, step.kind, batch.prompts * batch.answers, length, found.total, found.parts)


def _training(step: PlannedStep, settings: MethodSettings, base: Architecture, teacher: Architecture | None) -> StepMemory:
    rows, length = rows_at_once(settings.optimiser), settings.max_length
    learnt = settings.max_new_tokens if isinstance(settings, SampledSettings) else length
    beside = teacher if isinstance(settings, DistillSettings) else None
    found = estimate_of(base, settings, batch_of(settings, rows, length, learnt), beside)
    parts = {part: getattr(found, part) for part in found.PARTS}
    if sampled := sampled_bytes(base, settings):
        parts["sampling"] = sampled
    return StepMemory(step.name, step.kind, rows, length, sum(parts.values()), parts)


def _judging(step: PlannedStep, feedback: FeedbackSettings, models: _Models, texts: Judged) -> StepMemory:
    batch, found = judging_memory(models.judge(), feedback, texts)
    return StepMemory(step.name, step.kind, batch.rows, batch.before + batch.read, found.total, found.parts)
