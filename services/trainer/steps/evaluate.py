"""Step `evaluate`: measures base model and adapters in the same way on the held-out split, and keeps every answer."""

import json
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.jobs import StepResult
from schemas.lines import Prediction, Row
from schemas.reasons import Reason, first_of
from schemas.recipes.evaluation import EvaluationSettings
from schemas.results import DATASET, PREDICTIONS, ROWS_LEFT_OUT
from schemas.steps import EvaluateSettings
from services.chassis.executor.child import Context, UserFault
from services.chassis.storage.json_lines import write_lines
from services.language_models.chat_format.chat import Chat
from services.language_models.chat_format.written import visible
from services.language_models.generation import SamplingParams, rng
from services.language_models.lengths import context_length
from services.trainer.data.rows import rows_of
from services.trainer.harness.measured import measured
from services.trainer.modelling.latency import latency_ms
from services.trainer.steps.answering import answers_of
from services.trainer.steps.loading import answering_chat_faults, fetched, load
from services.trainer.steps.metrics import answer_metrics, length_metrics, loss_metrics
from services.trainer.steps.references import reference_losses

_log = logging.getLogger(__name__)
_NAMED = 5
"""The most rows that are named as left out."""


@answering_chat_faults
def evaluate(context: Context) -> StepResult:
    """Make the `predictions` artifact and its metrics.

    Rows whose prompt leaves no room for an answer within the model's context length are left out, counted and named in the
    facts; a reference beyond it is cut and counted. Answers and references are compared without the thoughts before them.
    """
    step = context.task.settings
    if not isinstance(step, EvaluateSettings):
        raise TypeError(f"settings of kind {step.kind} do not evaluate")
    settings = step.evaluation
    dataset = fetched(context, DATASET)
    rows = rows_of(dataset, "test")[: settings.rows]
    if faults := _faults(rows, settings):
        raise UserFault(*faults)
    loaded = load(context, step.base_model, settings.precision, step.chat_template)
    chat, model = loaded.chat, loaded.model()
    limit = context_length(model.config)
    asked, left_out = _readable(chat, rows, limit, settings.max_new_tokens)
    read, prompts = [row for row, _ in asked], [prompt for _, prompt in asked]
    metrics: dict[str, float | None] = {"rows": float(len(read)), "rows_left_out": float(len(left_out))}
    losses = None
    if "loss" in settings.metrics:
        losses = reference_losses(context, chat, model, read, limit, settings.batch_size)
        metrics |= loss_metrics(losses, settings.seed)
        metrics["references_cut"] = float(sum(loss.cut for loss in losses))
    answers = _answers(context, chat, model, prompts, settings)
    metrics |= length_metrics([len(ids) for made in answers for ids in made], settings.max_new_tokens)
    predictions = [
        Prediction(
            id=row.id,
            messages=row.messages,
            columns=row.columns,
            reference=visible(row.completion),
            greedy=visible(chat.text(made[0])),
            samples=tuple(visible(chat.text(ids)) for ids in made[1:]),
            nll=losses[number].mean if losses else None,
        )
        for number, (row, made) in enumerate(zip(read, answers, strict=True))
    ]
    metrics |= answer_metrics(settings, predictions)
    if "latency" in settings.metrics:
        metrics["latency_ms_per_token"] = latency_ms(chat, model, prompts[0], limit)
    of_tasks = measured(context, dataset, chat, model, settings)
    metrics |= of_tasks.metrics
    with tempfile.TemporaryDirectory() as name:
        of_tasks.write(Path(name))
        write_lines(Path(name) / Prediction.FILE, predictions)
        (Path(name) / "metrics.json").write_text(json.dumps(metrics, indent=2, sort_keys=True) + "\n")
        artifact = context.store.put(Path(name))
    facts = {ROWS_LEFT_OUT: _in_words(left_out, len(rows), limit)} if left_out else {}
    return StepResult(outputs={PREDICTIONS: artifact}, metrics=metrics, facts=facts | of_tasks.facts)


def _readable(
    chat: Chat, rows: Sequence[Row], limit: int | None, answer: int
) -> tuple[list[tuple[Row, list[int]]], list[Row]]:
    """Return the rows whose prompt leaves room for an answer of `answer` tokens, with that prompt, and those left out.

    Raises UserFault if none is read.
    """
    asked, left_out = list[tuple[Row, list[int]]](), list[Row]()
    prompts = chat.prompts(rows)
    for row, prompt in zip(rows, prompts, strict=True):
        if limit is None or len(prompt) + answer <= limit:
            asked.append((row, prompt))
        else:
            left_out.append(row)
    if not asked:
        raise UserFault(
            Reason(
                field="evaluation.max_new_tokens",
                value=str(answer),
                message=f"no held-out prompt leaves room for it: the model reads {limit} tokens, and the shortest prompt has "
                f"{min(map(len, prompts))}",
                remedy="lower max_new_tokens, or shorten the prompts",
            )
        )
    if left_out:
        _log.warning("%s", _in_words(left_out, len(rows), limit))
    return asked, left_out


def _in_words(left_out: Sequence[Row], of: int, limit: int | None) -> str:
    named = first_of([row.id for row in left_out], _NAMED)
    return f"{len(left_out)} of {of} held-out rows leave no room for an answer in the {limit} tokens that the model reads: {named}"


def _answers(
    context: Context, chat: Chat, model: Any, prompts: Sequence[Sequence[int]], wanted: EvaluationSettings
) -> list[list[list[int]]]:
    """Return for each prompt the tokens of the greedy answer, then of the sampled ones, from a single prefill."""
    started, done, tokens = time.monotonic(), 0, 0

    def on_batch(answered: int, made: int) -> None:
        nonlocal done, tokens
        done, tokens = done + answered, tokens + made
        rate = tokens / max(time.monotonic() - started, 1e-9)
        context.progress(done, len(prompts), "rows", tokens_per_second=rate)

    decoding = SamplingParams(chat.stop_ids, chat.pad_id, wanted.max_new_tokens, wanted.temperature)
    return answers_of(
        context, model, prompts,
        lambda number: [None, *(rng(wanted.seed, number, way) for way in range(wanted.samples))],
        decoding, wanted.batch_size, on_batch=on_batch,
    )  # fmt: skip


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
