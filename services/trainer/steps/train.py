"""Step `train`: trains an adapter on rows or pairs, and stores it with all that is needed to serve and audit it."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.jobs import StepResult
from schemas.lines import Preference, Split
from schemas.reasons import Reason
from schemas.recipes import LoraSettings, PreferenceSettings, TrainingSettings
from schemas.results import ADAPTER, BASE_MODEL_SHA256, CHAT_TEMPLATE_SHA256, DATASET, PRECISION, PREFERENCES, RECIPE_SHA256
from schemas.steps import TrainSettings
from services.chassis.executor.child import Context, UserFault
from services.chassis.storage.json_lines import read_lines
from services.trainer.data.rows import rows_of
from services.trainer.modelling.adapter import new_adapter, read_adapter, write_adapter
from services.trainer.modelling.base import load_base
from services.trainer.modelling.base_files import base_digest
from services.trainer.modelling.chat import Tokens
from services.trainer.steps.loading import LoadedModel, fetched, load
from services.trainer.training import loop
from services.trainer.training.checkpoints import Checkpoints, CurvePoint, write_curve
from services.trainer.training.dpo import PreferencePairs
from services.trainer.training.objective import Objective
from services.trainer.training.recipe import digest, recipe_of
from services.trainer.training.schedule import batch_of, micro_batch_size, steps_of
from services.trainer.training.sft import SupervisedRows

_SETTLED = 0.1
"""Share of the curve, at its end, whose mean is reported as the final value of a metric."""


def train(context: Context) -> StepResult:
    """Make the `adapter` artifact; its metrics are those at the end of the curve."""
    step, task = context.task.settings, context.task
    settings = step.training or step.preference if isinstance(step, TrainSettings) else None
    if not isinstance(step, TrainSettings) or settings is None:
        raise TypeError("settings of kind train with `training` or `preference` are needed")
    loaded = load(context, step.base_model, settings.precision)
    recipe = recipe_of(settings, base_digest(loaded.base, context), task.inputs)
    objective: Objective
    if isinstance(settings, TrainingSettings):
        objective, counts = _supervised(context, loaded, settings)
        field = "training.optimiser"
    else:
        objective, counts = _preferences(context, loaded, settings)
        field = "preference.optimiser"
    model = _adapted(loaded, settings, max(objective.lengths))
    plan = loop.TrainingPlan(
        settings.optimiser, field, settings.checkpoint_steps, settings.seed, loaded.dtype, loaded.device
    )
    checkpoints = Checkpoints(task.checkpoints, task.own_checkpoints, digest(recipe))
    curve = loop.train(context, model, objective, plan, checkpoints)
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    facts = {
        BASE_MODEL_SHA256: base_digest(loaded.base, context),
        RECIPE_SHA256: digest(recipe),
        PRECISION: str(loaded.dtype).removeprefix("torch."),
        CHAT_TEMPLATE_SHA256: loaded.chat.template_sha256,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_adapter(model, folder, step.base_model)
        loaded.chat.save(folder)
        described = {"method": settings.method, "base_model": step.base_model, **recipe, **facts}
        (folder / "training.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        write_curve(folder, curve)
        artifact = context.store.put(folder)
    metrics = {**settled(curve), "steps": float(len(curve)), "trainable_parameters": float(trainable), **counts}
    return StepResult(outputs={ADAPTER: artifact}, metrics=metrics, facts=facts)


def settled(curve: Sequence[CurvePoint]) -> dict[str, float]:
    """Return each metric at the end of the curve: the mean of the last tenth, or the last value if not measured at each
    step."""
    last = curve[-max(1, round(len(curve) * _SETTLED)) :]
    figures = {
        name: sum(point[name] for point in last) / len(last)
        for name in last[0]
        if name not in ("step", "learning_rate", "gradient_norm") and all(name in point for point in last)
    }
    return {**figures, **{name: value for name, value in last[-1].items() if name == "validation_loss"}}


def _supervised(
    context: Context, loaded: LoadedModel, settings: TrainingSettings
) -> tuple[SupervisedRows, Mapping[str, float]]:
    folder = fetched(context, DATASET)

    def tokens_of(split: Split) -> list[Tokens]:
        return [tokens.cut(settings.max_length) for tokens in loaded.chat.encode(rows_of(folder, split))]

    learnt, held_out = tokens_of("train"), tokens_of("validation")
    _refuse_unsupervised([learnt, held_out], "training", settings.max_length)
    return SupervisedRows(learnt, held_out, loaded.chat.pad_id, loaded.device), {"examples": float(len(learnt))}


def _preferences(
    context: Context, loaded: LoadedModel, settings: PreferenceSettings
) -> tuple[PreferencePairs, Mapping[str, float]]:
    read = read_lines(fetched(context, PREFERENCES) / Preference.FILE, Preference)
    if not read:
        message = "there is no preference pair for the training"
        remedy = "sample more prompts or candidates, lower feedback.margin, or read the report of the label step"
        raise UserFault(Reason(field="feedback", value="0 pairs", message=message, remedy=remedy))
    sides = [[(pair.messages, pair.chosen) for pair in read], [(pair.messages, pair.rejected) for pair in read]]
    chosen, rejected = ([tokens.cut(settings.max_length) for tokens in loaded.chat.encode(side)] for side in sides)
    _refuse_unsupervised([chosen, rejected], "preference", settings.max_length)
    optimiser = settings.optimiser
    steps = range(steps_of(optimiser, len(read)))
    used = sorted({pair for step in steps for pair in batch_of(step, optimiser.batch_size, len(read), settings.seed)})
    pairs = list(zip(chosen, rejected, strict=True))
    size = micro_batch_size(optimiser, context.task.memory_failures)
    longer = sum(better.supervised > worse.supervised for better, worse in pairs) / len(pairs)
    counts = {"examples": float(len(pairs)), "examples_used": float(len(used)), "chosen_longer": longer}
    return PreferencePairs(pairs, used, settings, size, loaded.chat.pad_id, loaded.device), counts


def _refuse_unsupervised(sides: Sequence[Sequence[Tokens]], field: str, max_length: int) -> None:
    without = [number for side in sides for number, tokens in enumerate(side, 1) if not tokens.supervised]
    if without:
        raise UserFault(
            Reason(
                field=f"{field}.max_length",
                value=str(max_length),
                message=f"{len(without)} examples contain no token of an answer after the cut; the first is number "
                f"{without[0]}",
                remedy=f"raise {field}.max_length, shorten the prompts or remove the rows",
            )
        )


def _adapted(loaded: LoadedModel, settings: TrainingSettings | PreferenceSettings, longest: int) -> Any:
    """Return the model with the adapter to train: the input adapter or a new one."""
    model = load_base(loaded.base, loaded.dtype, loaded.device, quantization=settings.quantization, trained_length=longest)
    if loaded.adapter is not None:
        return read_adapter(model, loaded.adapter, trainable=True)
    lora = settings.lora if isinstance(settings, TrainingSettings) else LoraSettings()
    return new_adapter(model, lora, settings.seed)
