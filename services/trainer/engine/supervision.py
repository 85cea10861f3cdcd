"""Watches a trainer of TRL step by step: seeds each step, reports it, saves checkpoints, stops within a step, sees divergence."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainerCallback

from services.chassis.executor.child import Context, Stopping
from services.trainer.engine.checkpoints import Checkpoints, CurvePoint
from services.trainer.engine.method import Method
from services.trainer.engine.ranks import Ranks
from services.trainer.engine.trained import TrainedState
from services.trainer.engine.versions import Stretch

_log = logging.getLogger(__name__)
_STEPS_OF_A_SEED = 32
_STEPS_OF_A_RANK = 24


class Diverged(Exception):
    """A step's loss, its gradient, what it made of the weights or their validation is not a finite number; the weights are of no use."""

    def __init__(self, step: int, loss: float, norm: float, broken: str = "") -> None:
        super().__init__(f"at step {step} the loss is {loss} and the gradient's norm {norm}{broken and f', and {broken}'}")
        self.before_training = step == 1 and not math.isfinite(loss)
        """Whether it is the loss of the weights that training begins with."""


@dataclass
class Run:
    """The steps of one run: those done by earlier runs, then those of the trainer, which counts from 0."""

    steps: int
    """Optimiser steps in all."""
    seed: int
    checkpoint_steps: int
    checkpoints: Checkpoints
    tokens: Callable[[int], int]
    """Tokens of the batch of a step."""
    curve: list[CurvePoint] = field(default_factory=list)
    """One point for each step that is done."""
    rate_factor: float = 1.0
    trained_with: Sequence[Stretch] = ()
    """With which versions of the libraries these steps are trained."""


class Supervision(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """The callback of one trainer. It raises Stopping when the run must end early, and Diverged when training has no use any
    more."""

    def __init__(
        self,
        context: Context,
        run: Run,
        state: TrainedState,
        method: Method,
        validate: Callable[[], CurvePoint],
        ranks: Ranks,
    ) -> None:
        self._context, self._run, self._state, self._method, self._validate = context, run, state, method, validate
        self._ranks = ranks
        self._begun = self._saved = len(run.curve)
        self._since = 0.0

    def on_step_begin(self, args: Any, *_: Any, **__: Any) -> None:
        """Seed what is random within the step, so that a resumed run has the dropout of one that was never interrupted."""
        self._stop_if_asked()
        if self._ranks.any(self._context.checkpoint_due()):
            self.save_done()
        own = self._ranks.rank << _STEPS_OF_A_RANK
        torch.manual_seed((self._run.seed << _STEPS_OF_A_SEED) + own + len(self._run.curve))
        self._since = time.monotonic()

    def on_substep_end(self, *_: Any, **__: Any) -> None:
        """Stop between two parts of a step; what the step has computed is dropped."""
        self._stop_if_asked()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Check at the first step that there are gradients. Sampled answers with equal rewards teach nothing, so theirs may be 0."""
        if len(self._run.curve) == self._begun:
            self._state.check_gradients(may_be_zero=self._method.generated > 0, anywhere=self._ranks.any)

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float], **_: Any) -> None:
        """Note a step that is done: its point of the curve, its progress and, when due, its checkpoint."""
        if "loss" not in logs:
            return  # the summary of the whole run
        run, step = self._run, len(self._run.curve) + 1
        loss, norm, rate = logs["loss"], float(logs["grad_norm"]), logs["learning_rate"]
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise Diverged(step, loss, norm)
        figures = {name: logs[theirs] for theirs, name in self._method.figures.items() if logs.get(theirs) is not None}
        point: dict[str, float] = {"step": step, "loss": loss, **figures, "learning_rate": rate, "gradient_norm": norm}
        run.curve.append(point)
        speed = (run.tokens(step - 1) + self._method.made(logs)) / (time.monotonic() - self._since)
        self._context.progress(step, run.steps, loss=loss, learning_rate=rate, tokens_per_second=speed, gradient_norm=norm)
        if step == run.steps or step % run.checkpoint_steps == 0:
            self._refuse_broken_weights(step, loss, norm)
            point |= (validated := self._validate())
            if not all(map(math.isfinite, validated.values())):
                raise Diverged(step, loss, norm, f"the validation gives {dict(validated)}")
            _log.info("step %d of %d: %s", step, run.steps, point)
            if step < run.steps:
                self._save()
        self._context.measured(step, {**point, "tokens_per_second": speed})
        state.log_history.clear()  # the curve has it

    def _stop_if_asked(self) -> None:
        if self._ranks.any(self._context.stopping):
            raise Stopping

    def save_done(self) -> None:
        """Save the steps that are done, unless they are saved or broke the weights; what the running step has computed is dropped."""
        if len(self._run.curve) > self._saved and not self._broken():
            self._save()

    def _broken(self) -> bool:
        """Whether a process has weights that are not numbers; all must call it, since each may have only a part of them."""
        return self._ranks.any(not self._state.finite())

    def _refuse_broken_weights(self, step: int, loss: float, norm: float) -> None:
        if self._broken():
            raise Diverged(step, loss, norm, "its update made weights that are not numbers")

    def _save(self) -> None:
        run = self._run
        groups = self._state.groups(kept=self._ranks.first)
        if self._ranks.first:
            run.checkpoints.save(len(run.curve), groups, run.curve, run.rate_factor, run.trained_with)
        self._saved = len(run.curve)


def reporter(context: Context, done: int, steps: int) -> Callable[[], None]:
    """Return what is called between parts of the work before the first step, or after the last."""

    def on_part() -> None:
        if context.stopping:
            raise Stopping
        context.progress(done, steps)

    return on_part


def tokens_of(batches: Callable[[int], Sequence[int]], lengths: Sequence[int], group: int = 1) -> Callable[[int], int]:
    """Return a function that counts the tokens of a step's batch, in which each example is `group` times."""
    return lambda step: group * sum(lengths[example] for example in batches(step))
