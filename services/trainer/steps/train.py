"""Step `train`: trains an adapter or a whole model, and stores it with all that is needed to serve and audit it."""

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.ledger import RowsUsed
from schemas.recipes.distill import DistillSettings
from schemas.recipes.dpo import PreferenceSettings
from schemas.recipes.grpo import GrpoSettings
from schemas.recipes.kto import KtoSettings
from schemas.recipes.methods import MethodSettings, trains_all
from schemas.recipes.online import OnlineSettings
from schemas.recipes.reward import RewardModelSettings
from schemas.recipes.rloo import RlooSettings
from schemas.recipes.sft import TrainingSettings
from schemas.results import (
    ADAPTER,
    BACKEND,
    BASE_MODEL_SHA256,
    CHAT_TEMPLATE_SHA256,
    DEVICE,
    LIBRARIES,
    MODEL,
    PRECISION,
    PROCESSES,
    RECIPE_SHA256,
    ROWS_LEFT_OUT,
    ROWS_USED,
    SCORES_ANSWERS,
    STRATEGY,
    TEACHER_SHA256,
    THREADS,
    VERSIONS_CHANGED,
)
from schemas.steps import TrainSettings
from services.chassis.executor.child import Context
from services.language_models.chat_format.chat import Chat
from services.trainer.engine import training as engine
from services.trainer.engine.checkpoints import Checkpoints, CurvePoint, write_curve
from services.trainer.engine.method import Method
from services.trainer.engine.ranks import joined, refuse_unsplittable
from services.trainer.engine.recipe import digest, recipe_of
from services.trainer.engine.schedule import times_used, tokens_read
from services.trainer.engine.training import Plan
from services.trainer.engine.versions import installed
from services.trainer.judging.judges import facts_of, judges_of, keeping_scores
from services.trainer.judging.reward_judge import JudgedReward
from services.trainer.methods.distill import distill
from services.trainer.methods.dpo import dpo
from services.trainer.methods.grpo import grpo
from services.trainer.methods.kto import kto
from services.trainer.methods.reward import reward
from services.trainer.methods.rloo import rloo
from services.trainer.methods.sft import sft
from services.trainer.modelling.adapter import RECORD, new_adapter, read_adapter, write_adapter
from services.trainer.modelling.architecture import architecture_of
from services.trainer.modelling.base import faults_of, load_base
from services.trainer.modelling.base_files import BaseFault
from services.trainer.modelling.sharded import refuse_unshareable
from services.trainer.modelling.teacher import teacher_digest, teacher_folder
from services.trainer.modelling.whole import whole_model, write_whole
from services.trainer.steps.loading import LoadedModel, answering_chat_faults, load
from services.trainer.steps.memory import memory_metrics
from services.trainer.steps.room import refuse_full_disk

_log = logging.getLogger(__name__)
_SETTLED = 0.1
"""Share of the curve, at its end, whose mean is reported as the final value of a metric."""


@answering_chat_faults
def train(context: Context) -> StepResult:
    """Make the artifact `adapter`, or `model` if all weights are trained; its metrics are those at the end of the curve.

    A process that is not the first of those that share the training makes nothing.
    """
    step, task = context.task.settings, context.task
    settings = step.method_settings if isinstance(step, TrainSettings) else None
    if not isinstance(step, TrainSettings) or settings is None:
        raise TypeError("settings of kind train with those of a method are needed")
    refuse_unsplittable(step, settings, task.processes)
    loaded = load(context, step.base_model, settings.precision, step.chat_template)
    with faults_of(loaded.base):
        refuse_unshareable(str(step.section), settings, architecture_of(loaded.base), loaded.adapter, task.shards)
    teacher = teacher_folder(settings, context) if isinstance(settings, DistillSettings) else None
    learns_from = {} if teacher is None else {TEACHER_SHA256: teacher_digest(teacher, context)}
    judges = judges_of(context, settings.rewards, str(step.section)) if isinstance(settings, OnlineSettings) else {}
    recipe = recipe_of(settings, loaded.digest, loaded.chat.template_sha256, task.inputs) | learns_from
    if judges:
        recipe["judges"] = {name: dict(judge.identity.facts) for name, judge in judges.items()}
    method = _method(context, loaded, settings, judges)
    checkpoints = Checkpoints(task.checkpoints, task.own_checkpoints, digest(recipe))
    if whole := trains_all(settings):
        refuse_full_disk(loaded.base, settings.optimiser, task.own_checkpoints)
    with joined(task) as ranks, keeping_scores(context, judges):
        plan = Plan(settings.seed, settings.checkpoint_steps, loaded.dtype, loaded.device, checkpoints, ranks)
        trained = engine.train(context, method, plan, lambda: _adapted(loaded, settings, method.longest, task.shards))
    method.check(trained.curve)
    if not ranks.first:
        return StepResult()
    facts = {
        BASE_MODEL_SHA256: loaded.digest,
        RECIPE_SHA256: digest(recipe),
        PRECISION: str(loaded.dtype).removeprefix("torch."),
        CHAT_TEMPLATE_SHA256: loaded.chat.template_sha256,
        DEVICE: loaded.device.type,
        PROCESSES: str(ranks.processes),
        STRATEGY: trained.strategy,
        THREADS: str(torch.get_num_threads()),
        **({BACKEND: ranks.backend} if ranks.backend else {}),
        **learns_from,
        **facts_of(judges),
        **method.facts(),
        **({VERSIONS_CHANGED: trained.versions_changed} if trained.versions_changed else {}),
    }
    if isinstance(settings, RewardModelSettings):
        facts[SCORES_ANSWERS] = "true"
    if method.left_out:
        _log.warning("%s", method.left_out)
        facts[ROWS_LEFT_OUT] = method.left_out
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if whole:
            write_whole(trained.model, folder, loaded.base, trained.weights)
        else:
            write_adapter(trained.model, folder, step.base_model)
        Chat(loaded.adapter or loaded.base, step.chat_template).save(
            folder
        )  # read anew: trainers set tokens of the one that they are given
        described = {
            "method": method.name, "base_model": step.base_model, **recipe, **facts, LIBRARIES: installed(),
        }  # fmt: skip
        (folder / RECORD).write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        write_curve(folder, trained.curve)
        artifact = context.store.put(folder)
    outputs = {MODEL if whole else ADAPTER: artifact, ROWS_USED: _ledger(context, method, settings.seed)}
    metrics = {
        **settled(trained.curve),
        "steps": float(len(trained.curve)),
        "trainable_parameters": float(trained.parameters),
        **_compute(loaded.base, settings, method),
        **({"rate_factor": trained.rate_factor} if trained.rate_factor < 1 else {}),
        **memory_metrics(loaded.base, settings, method, task, teacher),
        **method.counts,
        **trained.figures,
    }
    if MODEL in task.inputs:
        del facts[BASE_MODEL_SHA256]  # of a job it is the digest of the model that the request names
    return StepResult(outputs=outputs, metrics=metrics, facts=facts)


def _ledger(context: Context, method: Method, seed: int) -> ArtifactRef:
    """Store which rows the training learnt from, and how often."""
    times = times_used(method.optimiser, len(method.names), seed, method.group)
    ledger = RowsUsed.of(zip(method.names, times, strict=True))
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / RowsUsed.FILE).write_text(ledger.model_dump_json() + "\n", encoding="utf-8")
        return context.store.put(Path(name))


def _compute(base: Path, settings: MethodSettings, method: Method) -> dict[str, float]:
    """Return the numbers from which the compute of a training follows; without tokens where a method samples its own."""
    found = {} if method.generated else {
        "tokens_read": float(tokens_read(method.optimiser, method.lengths, settings.seed, method.group))
    }  # fmt: skip
    try:
        return {**found, "base_parameters": float(architecture_of(base).parameters)}
    except BaseFault as fault:  # a finished training does not fail for a number
        _log.warning("the weights of the base model cannot be counted: %s", fault)
        return found


def settled(curve: Sequence[CurvePoint]) -> dict[str, float]:
    """Return each metric at the end of the curve: the mean of the last tenth, or the last value if not measured at each
    step."""
    last = curve[-max(1, round(len(curve) * _SETTLED)) :]
    figures = {
        name: sum(point[name] for point in last) / len(last)
        for name in last[0]
        if name not in ("step", "learning_rate", "gradient_norm") and all(name in point for point in last)
    }
    return {**figures, **{name: value for name, value in last[-1].items() if name.startswith("validation_")}}


def _method(context: Context, loaded: LoadedModel, settings: MethodSettings, judges: Mapping[str, JudgedReward]) -> Method:
    match settings:
        case TrainingSettings():
            return sft(context, loaded, settings)
        case PreferenceSettings():
            return dpo(context, loaded, settings)
        case KtoSettings():
            return kto(context, loaded, settings)
        case GrpoSettings():
            return grpo(context, loaded, settings, judges)
        case RlooSettings():
            return rloo(context, loaded, settings, judges)
        case DistillSettings():
            return distill(context, loaded, settings)
        case RewardModelSettings():
            return reward(context, loaded, settings)


def _adapted(loaded: LoadedModel, settings: MethodSettings, longest: int, shards: int) -> Any:
    """Return the model with the adapter to train, the input adapter or a new one; or the model of which all weights are trained.
    So many processes share its weights."""
    packed = isinstance(settings, TrainingSettings) and settings.packing
    if trains_all(settings):
        return whole_model(
            loaded.base, loaded.dtype, loaded.device, trained_length=longest, packed=packed, processes=shards
        )
    model = load_base(
        loaded.base,
        loaded.dtype,
        loaded.device,
        quantization=settings.quantization,
        trained_length=longest,
        packed=packed,
        scoring_seed=settings.seed if isinstance(settings, RewardModelSettings) else None,
        processes=shards,
    )
    if loaded.adapter is not None:
        return read_adapter(model, loaded.adapter, trainable=True)
    return new_adapter(model, settings.lora, settings.seed)
