"""Trains an adapter with TRL's trainer of a method, so that a run can be killed, stopped or short of memory and ends the same.

The trainer only ever sees the steps that are left: its examples in the order of our schedule, the optimiser's state and the
rate of each step are set before it starts. So a resume needs nothing of the trainer's own, whose checkpoints are pickles that
nothing verifies.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from schemas.reasons import Reason, first_of
from services.chassis.executor.child import Context, Stopping, UserFault
from services.trainer.engine.checkpoints import Checkpoint, Checkpoints, CurvePoint
from services.trainer.engine.eight_bits import EIGHT_BITS, begin_eight_bits
from services.trainer.engine.lean_head import put_lean_head
from services.trainer.engine.method import Figures, Method
from services.trainer.engine.ranks import Ranks
from services.trainer.engine.schedule import batch_of, by_length, learning_rate, micro_batch_size, steps_of, used_examples
from services.trainer.engine.supervision import Diverged, Run, Supervision, reporter, tokens_of
from services.trainer.engine.trained import Misfit, NoGradient, TrainedState, ZeroGradient
from services.trainer.engine.versions import Stretch, changes, continued
from services.trainer.modelling.sharded import is_shared, only_in_parts, whole_weights

_log = logging.getLogger(__name__)
_ZEROS = "check the weights of the base model, which may all be zero, as in a download that broke off, or name another one"
_NUMBERS = "check the weights of the base model for NaN and infinities, set precision to fp32, or name another one"
_LOWER = 0.5
"""Factor of the learning rate for the one retry after a divergence."""
_NAMED = 3
"""Number of layers that a message names."""
_OPTIMISERS = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_bnb_8bit", "adafactor": "adafactor"}
"""The library's names of the optimisers, all of whose state is in the checkpoints."""

_STRATEGIES = {"NO": "none", "MULTI_CPU": "ddp", "MULTI_GPU": "ddp"}
"""What accelerate's names of what it does mean, where no weight is shared."""


@dataclass(frozen=True)
class Plan:
    """How one run trains."""

    seed: int
    checkpoint_steps: int
    dtype: torch.dtype
    """The dtype of matrix multiplications; the adapter's weights and the optimiser are fp32."""
    device: torch.device
    checkpoints: Checkpoints
    ranks: Ranks
    """The processes that share the training; each reads all checkpoints, the first one writes them."""


@dataclass(frozen=True)
class Trained:
    """What a run has made."""

    model: Any
    curve: list[CurvePoint]
    parameters: int
    """The number of trainable parameters."""
    rate_factor: float
    """Factor of the learning rate, less than 1 if the run once diverged."""
    strategy: str
    """How the training was split over processes: `fsdp` if they share weights, else as accelerate says, `ddp` or `none`."""
    weights: Mapping[str, torch.Tensor] | None
    """All weights, in the first process, where the processes share what is trained; None: `model` has them."""
    figures: Figures
    """What the method measured at the end."""
    versions_changed: str | None
    """From which step on other versions of the libraries trained, in words; None if the same ones trained all steps."""


def train(context: Context, method: Method, plan: Plan, load: Callable[[], Any]) -> Trained:
    """Train the adapter of the model that `load` returns, to the end of the plan.

    If training diverges, it goes back to the last checkpoint, and once more with a lower rate. Raises Stopping, after saving
    all steps done so far, if the run must end early; UserFault if training diverges again, or a layer gets no gradient.
    """
    try:
        return _run(context, method, plan, load, 1.0)
    except NoGradient as error:
        raise _without_gradient(method, error) from error
    except ZeroGradient as error:
        raise _of_base("the gradient of every trainable weight is zero at the first step", _ZEROS) from error
    except Diverged as first:
        if first.before_training:
            raise _of_base(f"its loss is not a number before it is trained: {first}", _NUMBERS) from first
        _log.warning("training diverged: %s; once more from the last checkpoint, at %s of the rate", first, _LOWER)
    try:
        return _run(context, method, plan, load, _LOWER)
    except Diverged as again:
        raise _fault(method, again) from again


def _run(context: Context, method: Method, plan: Plan, load: Callable[[], Any], rate_factor: float) -> Trained:
    """Go on from the newest checkpoint that fits the model."""
    while True:
        found = plan.checkpoints.newest()
        try:
            return _go_on(context, method, plan, load, rate_factor, found)
        except Misfit as error:
            if found is None or found.folder is None:
                raise
            plan.checkpoints.skip(found.folder, error)


def _go_on(
    context: Context, method: Method, plan: Plan, load: Callable[[], Any], rate_factor: float, found: Checkpoint | None
) -> Trained:
    settings, lengths = method.optimiser, method.lengths
    steps = steps_of(settings, len(lengths), method.group)

    def batch(step: int) -> list[int]:
        return by_length(batch_of(step, settings.batch_size // method.group, len(lengths), plan.seed), lengths)

    factor = min(rate_factor, found.rate_factor if found else 1.0)
    curve = list(found.curve) if found else []
    plan.ranks.agree(len(curve), "the checkpoint from which they go on")
    trained_with = _trained_with(plan.checkpoints, found, steps)
    run = Run(
        steps,
        plan.seed,
        plan.checkpoint_steps,
        plan.checkpoints,
        tokens_of(batch, lengths, method.group),
        curve,
        factor,
        trained_with,
    )
    context.resumed(point["loss"] for point in curve)
    if settings.name == EIGHT_BITS:
        begin_eight_bits(method.section)
    trainer = _trainer(context, method, plan, load(), len(curve), batch)
    state = TrainedState(trainer.model, trainer.create_optimizer())
    if found is not None:
        state.restore(found.tensors)
    _schedule(trainer, method, factor, len(curve), steps)

    def measured(measure: Callable[[Any], CurvePoint]) -> CurvePoint:
        with torch.no_grad(), trainer.accelerator.autocast(), only_in_parts(trainer.model):
            return measure(trainer.model.eval())

    supervision = Supervision(context, run, state, method, lambda: measured(method.validate), plan.ranks)
    trainer.add_callback(supervision)
    strategy = _strategy(trainer, plan.ranks)
    if len(curve) < steps:
        try:
            trainer.train()
        except Stopping:
            supervision.save_done()
            raise
    on_part = reporter(context, steps, steps)
    figures = measured(lambda model: method.measure(model, on_part))
    weights = whole_weights(trainer.model) if state.shared else None
    return Trained(trainer.model, run.curve, state.count, factor, strategy, weights, figures, changes(trained_with))


def _strategy(trainer: Any, ranks: Ranks) -> str:
    """Return how the training is really split, and say it."""
    shared = is_shared(trainer.model.parameters())
    strategy = "fsdp" if shared else _STRATEGIES[trainer.accelerator.distributed_type.value]
    if ranks.processes > 1:
        _log.info("%d processes train, connected by %s, with the strategy %s", ranks.processes, ranks.backend, strategy)
    return strategy


def _trained_with(checkpoints: Checkpoints, found: Checkpoint | None, steps: int) -> Sequence[Stretch]:
    """Return with which versions the steps are trained, and say it if others than before train those that are left."""
    done = found.step if found else 0
    before = found.trained_with if found else ()
    now = continued(before, done, checkpoints.versions) if done < steps else before
    if len(now) > max(1, len(before)):
        _log.warning("the libraries are others than those of the checkpoint: %s", changes(now))
    return now


def _trainer(
    context: Context, method: Method, plan: Plan, model: Any, begun: int, batch: Callable[[int], list[int]]
) -> Any:
    """Return TRL's trainer for the steps from `begun` on."""
    from datasets import Dataset, disable_progress_bars
    from transformers import PrinterCallback

    disable_progress_bars()
    settings, steps = method.optimiser, steps_of(method.optimiser, len(method.lengths), method.group)
    context.progress(begun, steps)
    used = used_examples(settings, method.lengths, plan.seed, method.group)
    rows = plan.ranks.shared(Dataset.from_list([dict(method.rows[example]) for example in used]))
    weights = {name: weight.data for name, weight in model.named_parameters() if weight.requires_grad}
    if is_shared(weights.values()):
        weights = {}  # nothing rounds them
    arguments = _arguments(context, method, plan, max(1, steps - begun))
    trainer = method.build(model, arguments, rows, reporter(context, begun, steps))
    trainer.remove_callback(PrinterCallback)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in weights:
                weight.data = weights[name]  # TRL rounds those of a quantised model to bf16
    if plan.device.type == "cpu" and method.lean_head:
        put_lean_head(trainer.model, method.temperature)
    place = {example: number for number, example in enumerate(used)}
    order = [place[example] for step in range(begun, steps) for example in batch(step)]
    trainer.train_dataset = trainer.train_dataset.select(order)
    return trainer


def _arguments(context: Context, method: Method, plan: Plan, steps: int) -> Mapping[str, Any]:
    """The arguments of transformers' Trainer that do not depend on the method."""
    settings = method.optimiser
    processes = plan.ranks.processes
    size = micro_batch_size(settings, context.task.memory_failures, processes)
    return {
        "output_dir": str(context.task.own_checkpoints),
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": settings.batch_size // size // processes,
        "max_steps": steps,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "optim": _OPTIMISERS[settings.name],
        "seed": plan.seed,
        "data_seed": plan.seed,
        "train_sampling_strategy": "sequential",  # the rows are in the order of our schedule
        "use_cpu": plan.device.type == "cpu",
        "ddp_backend": "gloo" if processes > 1 and plan.device.type == "cpu" else None,
        "bf16": plan.dtype == torch.bfloat16,
        "activation_checkpointing": settings.activation_checkpointing,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would hide a divergence
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }


def _schedule(trainer: Any, method: Method, factor: float, begun: int, steps: int) -> None:
    """Set the rate of every step. The library's own warm-up starts at 0, which wastes the first step."""

    def share(step: int) -> float:
        rate = learning_rate(method.optimiser, min(begun + step, steps - 1), steps)
        return factor * rate / method.optimiser.learning_rate

    trainer.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, share)


def _of_base(what: str, remedy: str) -> UserFault:
    return UserFault(Reason(field="base_model", message=what, remedy=remedy))


def _without_gradient(method: Method, error: NoGradient) -> UserFault:
    return UserFault(
        Reason(
            field=f"{method.section}.lora.targets",
            value=first_of(error.layers, _NAMED),
            message="the loss does not depend on these layers: their adapters got no gradient",
            remedy=f"name the layers to adapt in {method.section}.lora.targets, without these",
        )
    )


def _fault(method: Method, diverged: Diverged) -> UserFault:
    return UserFault(
        Reason(
            field=f"{method.section}.optimiser.learning_rate",
            value=str(method.optimiser.learning_rate),
            message=f"training diverged, and again from the last checkpoint at {_LOWER:.0%} of the rate: {diverged}",
            remedy="lower the learning rate, lengthen the warm-up or lower max_grad_norm",
        )
    )
