"""Trains every adapter in one loop, whatever the objective, with the same steps, checkpoints and resumption.

The losses of a batch's parts sum to its loss, so the effective batch stays as requested when memory forces smaller parts.
All randomness of a step is derived from seed and step, so a run that resumes from a checkpoint takes the same steps as one
that was never interrupted.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from schemas.reasons import Reason
from schemas.recipes import OptimiserSettings
from services.chassis.executor.child import Context, Stopping, UserFault
from services.trainer.training.checkpoints import Checkpoint, Checkpoints, CurvePoint, Tensors
from services.trainer.training.objective import Objective
from services.trainer.training.schedule import batch_of, learning_rate, micro_batch_size, micro_batches, steps_of

_log = logging.getLogger(__name__)
_WEIGHTS = "weights"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class TrainingPlan:
    """The settings of one run of the loop."""

    optimiser: OptimiserSettings
    field: str
    """The request's field with the optimiser settings, for messages."""
    checkpoint_steps: int
    seed: int
    dtype: torch.dtype
    """The dtype of matrix multiplications; the adapter's weights and the optimiser are fp32."""
    device: torch.device

    def arithmetic(self) -> torch.autocast:
        """Return the context in which forward passes compute in `dtype`."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)


def train(
    context: Context, model: Any, objective: Objective, plan: TrainingPlan, checkpoints: Checkpoints
) -> list[CurvePoint]:
    """Train the adapter of `model` in place to the end of the plan; return one point per step.

    Raises Stopping, after saving all steps done so far, if the run must end early; UserFault if training diverges.
    """
    settings = plan.optimiser
    steps = steps_of(settings, len(objective.lengths))
    trained = _Trained(model, settings)
    _begin(context, model, objective, plan, steps)
    curve = trained.resume(checkpoints)
    begun = saved = len(curve)
    for step in range(begun, steps):
        since = time.monotonic()
        batch = batch_of(step, settings.batch_size, len(objective.lengths), plan.seed)
        try:
            losses = _backward(context, model, objective, plan, step, batch)
        except Stopping:
            if step > saved:
                checkpoints.save(step, trained.state(), curve)
            raise
        if step == begun:
            trained.check_gradients()
        rate = learning_rate(settings, step, steps)
        norm = trained.update(rate)
        point: dict[str, float] = {"step": step + 1, **losses, "learning_rate": rate, "gradient_norm": norm}
        if not math.isfinite(point["loss"]) or not math.isfinite(norm):
            raise _diverged(plan, step + 1, point["loss"], norm)
        curve.append(point)
        speed = sum(objective.lengths[example] for example in batch) / (time.monotonic() - since)
        context.progress(step + 1, steps, loss=point["loss"], learning_rate=rate, tokens_per_second=speed)
        if step + 1 == steps or (step + 1) % plan.checkpoint_steps == 0:
            point |= _validated(model, objective, plan)
            _log.info("step %d of %d: %s", step + 1, steps, point)
            if step + 1 < steps:
                checkpoints.save(step + 1, trained.state(), curve)
                saved = step + 1
    return curve


def _begin(context: Context, model: Any, objective: Objective, plan: TrainingPlan, steps: int) -> None:
    def on_part() -> None:
        if context.stopping:
            raise Stopping
        context.progress(0, steps)

    model.eval()
    with plan.arithmetic(), torch.no_grad():
        objective.begin(model, on_part)


def _backward(
    context: Context, model: Any, objective: Objective, plan: TrainingPlan, step: int, batch: Sequence[int]
) -> dict[str, float]:
    """Accumulate the gradients of the mean loss of `batch`, part by part; return its loss and metrics. Raises Stopping."""
    torch.manual_seed((plan.seed << 32) + step)  # a resumed run has the dropout of an uninterrupted one
    size = micro_batch_size(plan.optimiser, context.task.memory_failures)
    sums = {"loss": 0.0}
    model.train()
    for part in micro_batches(batch, objective.lengths, size):
        if context.stopping:
            raise Stopping
        with plan.arithmetic():
            loss, figures = objective.loss(model, part, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        for name, value in {"loss": loss.item(), **figures}.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums


def _validated(model: Any, objective: Objective, plan: TrainingPlan) -> Mapping[str, float]:
    model.eval()
    with plan.arithmetic(), torch.no_grad():
        return objective.validate(model)


class _Trained:
    """The adapter's weights and the optimiser: everything that a step changes."""

    def __init__(self, model: Any, settings: OptimiserSettings) -> None:
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        if not self._weights:
            raise RuntimeError("the adapter has no trainable parameters")
        self._max_norm = settings.max_grad_norm
        self._optimiser = torch.optim.AdamW(
            list(self._weights.values()), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def update(self, rate: float) -> float:
        """Take one optimiser step with clipped gradients, clear them, and return their norm before clipping."""
        norm = torch.nn.utils.clip_grad_norm_(self._weights.values(), self._max_norm).item()
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        return norm

    def check_gradients(self) -> None:
        """Raise at the first step if there are no gradients: a frozen or detached adapter trains without effect."""
        without = [name for name, weight in self._weights.items() if weight.grad is None]
        if without:
            raise RuntimeError(f"{len(without)} trainable weights got no gradient, for example {without[0]}")
        if not any(bool(weight.grad.any()) for weight in self._weights.values() if weight.grad is not None):
            raise RuntimeError("the gradient of every trainable weight is zero: the loss does not depend on the adapter")

    def state(self) -> dict[str, Tensors]:
        """Return the tensors that a checkpoint must contain."""
        moments = {
            moment: {name: self._optimiser.state[weight][moment] for name, weight in self._weights.items()}
            for moment in _MOMENTS
        }
        return {_WEIGHTS: self._weights, **moments}

    def resume(self, checkpoints: Checkpoints) -> list[CurvePoint]:
        """Load the newest usable checkpoint and return the curve up to it; empty if there is none."""
        found = checkpoints.newest()
        if found is None:
            return []
        self._restore(found)
        return list(found.curve)

    @torch.no_grad()
    def _restore(self, checkpoint: Checkpoint) -> None:
        for name, weight in self._weights.items():
            weight.copy_(checkpoint.tensors[_WEIGHTS][name])
            moments = {moment: checkpoint.tensors[moment][name].to(weight.device) for moment in _MOMENTS}
            self._optimiser.state[weight] = {"step": torch.tensor(float(checkpoint.step)), **moments}


def _diverged(plan: TrainingPlan, step: int, loss: float, norm: float) -> UserFault:
    return UserFault(
        Reason(
            field=f"{plan.field}.learning_rate",
            value=str(plan.optimiser.learning_rate),
            message=f"training diverged: at step {step} the loss is {loss} and the gradient's norm {norm}",
            remedy="lower the learning rate, lengthen the warm-up or lower max_grad_norm",
        )
    )
