"""Step `evaluate`: measures base model and adapters in the same way on the held-out split, and keeps every answer."""

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from schemas.jobs import StepResult
from schemas.lines import Prediction, Row
from schemas.reasons import Reason
from schemas.recipes import EvaluationSettings
from schemas.results import DATASET, PREDICTIONS
from schemas.steps import EvaluateSettings
from services.chassis.executor.child import Context, Stopping, UserFault
from services.chassis.storage.json_lines import write_lines
from services.trainer.data.rows import rows_of
from services.trainer.modelling.chat import Chat
from services.trainer.modelling.generation import SamplingParams, generate, rng
from services.trainer.modelling.likelihood import log_probabilities, pad
from services.trainer.steps.answering import answers_of
from services.trainer.steps.loading import fetched, load
from services.trainer.steps.measures import exact_match, good_reply, valid_json

_TIMED_TOKENS = 24


def evaluate(context: Context) -> StepResult:
    """Make the `predictions` artifact and its metrics."""
    step = context.task.settings
    if not isinstance(step, EvaluateSettings):
        raise TypeError(f"settings of kind {step.kind} do not evaluate")
    settings = step.evaluation
    rows = rows_of(fetched(context, DATASET), "test")[: settings.rows]
    if faults := _faults(rows, settings):
        raise UserFault(*faults)
    loaded = load(context, step.base_model, settings.precision)
    work = _Work(context, loaded.chat, loaded.model(), settings, rows)
    losses = work.losses()
    answers = work.answers()
    predictions = [
        Prediction(
            id=row.id,
            messages=row.messages,
            columns=row.columns,
            reference=row.completion,
            greedy=made[0],
            samples=tuple(made[1:]),
            nll=loss,
        )
        for row, made, loss in zip(rows, answers, losses, strict=True)
    ]
    metrics = work.metrics(predictions)
    with tempfile.TemporaryDirectory() as name:
        write_lines(Path(name) / Prediction.FILE, predictions)
        (Path(name) / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
        artifact = context.store.put(Path(name))
    return StepResult(outputs={PREDICTIONS: artifact}, metrics=metrics)


@dataclass
class _Work:
    """One evaluation, with progress counted in rows: first their losses, then their answers."""

    context: Context
    chat: Chat
    model: Any
    settings: EvaluationSettings
    rows: Sequence[Row]
    _supervised: int = field(default=0, init=False)
    _nll: float = field(default=0.0, init=False)

    @torch.inference_mode()
    def losses(self) -> list[float | None]:
        """Return the mean negative log-likelihood of each reference's tokens; None if the loss was not requested."""
        losses: list[float | None] = [None] * len(self.rows)
        if "loss" not in self.settings.metrics:
            return losses
        encoded = self.chat.encode(self.rows)
        order = sorted(range(len(encoded)), key=lambda number: len(encoded[number]))
        size = max(1, self.settings.batch_size >> self.context.task.memory_failures)
        for first in range(0, len(order), size):
            if self.context.stopping:
                raise Stopping
            batch = order[first : first + size]
            padded = pad([encoded[number] for number in batch], self.chat.pad_id, self.model.device)
            logps, owner = log_probabilities(self.model, padded)
            sums = torch.zeros(len(batch), device=logps.device).index_add(0, owner, logps).tolist()
            for number, total in zip(batch, sums, strict=True):
                count = encoded[number].supervised
                losses[number] = -total / count
                self._nll, self._supervised = self._nll - total, self._supervised + count
            self.context.progress(first + len(batch), len(self.rows), "references")
        return losses

    def answers(self) -> list[list[str]]:
        """For each row the greedy answer, then the sampled ones, from a single prefill."""
        wanted = self.settings
        started, done, tokens = time.monotonic(), 0, 0

        def on_batch(answered: int, made: int) -> None:
            nonlocal done, tokens
            done, tokens = done + answered, tokens + made
            rate = tokens / max(time.monotonic() - started, 1e-9)
            self.context.progress(done, len(self.rows), "rows", tokens_per_second=rate)

        decoding = SamplingParams(self.chat.stop_ids, self.chat.pad_id, wanted.max_new_tokens, wanted.temperature)
        answers = answers_of(
            self.context, self.model, self.chat.prompts(row.messages for row in self.rows),
            lambda number: [None, *(rng(wanted.seed, number, way) for way in range(wanted.samples))],
            decoding, wanted.batch_size, on_batch=on_batch,
        )  # fmt: skip
        return [[self.chat.text(ids) for ids in made] for made in answers]

    def metrics(self, predictions: Sequence[Prediction]) -> dict[str, float | None]:
        """Return the requested metrics, by name."""
        metrics: dict[str, float | None] = {"rows": float(len(predictions))}
        for metric in self.settings.metrics:
            match metric:
                case "loss":
                    metrics["loss"] = self._nll / self._supervised
                case "valid_json":
                    metrics["valid_json"] = valid_json(predictions)
                case "exact_match":
                    metrics["exact_match"] = exact_match(predictions, self.settings.exact_match_fields)
                case "rules":
                    metrics["good_reply"] = good_reply(predictions, self.settings.rules, self.settings.rules_field)
                case "latency":
                    metrics["latency_ms_per_token"] = self.latency_ms()
        return metrics

    def latency_ms(self) -> float:
        """Return the median milliseconds per token when answers are generated one at a time, as for a single user."""
        times: list[float] = []
        decoding = SamplingParams(frozenset(), self.chat.pad_id, _TIMED_TOKENS)
        prompts = self.chat.prompts([self.rows[0].messages])
        generate(self.model, prompts, [[None]], decoding, on_token=lambda: times.append(time.perf_counter()))
        return statistics.median(later - earlier for earlier, later in pairwise(times[1:])) * 1000


def _faults(rows: Sequence[Row], settings: EvaluationSettings) -> list[Reason]:
    faults = []
    if not rows:
        faults.append(
            Reason(
                field="dataset.split.test",
                message="there is no held-out row for the evaluation",
                remedy="name a test split, give a test_fraction, or leave evaluation out of the pipeline",
            )
        )
    if "rules" in settings.metrics and not settings.rules:
        message, remedy = "the metric rules is requested, but there is no rule", "add rules, or remove the metric"
        faults.append(Reason(field="evaluation.rules", message=message, remedy=remedy))
    return faults
