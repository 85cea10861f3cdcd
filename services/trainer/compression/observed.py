"""Observes a model: what it computes, how fast it is and how well it predicts held-out answers, in the same way for parent and result."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from schemas.lines import Message, Row
from services.chassis.executor.child import Context
from services.language_models.chat_format.chat import Chat, ChatFault
from services.language_models.lengths import context_length
from services.language_models.precision import cast_weights, compute_dtype
from services.trainer.compression.proof import logits_of, probes
from services.trainer.modelling.latency import latency_ms
from services.trainer.steps.metrics import loss_metrics
from services.trainer.steps.references import reference_losses

_ASKED = [Message(role="user", content="Describe the weather of this week in a few sentences.")]
OBSERVED = 16
"""Rows that are scored at once."""


@dataclass(frozen=True)
class Observation:
    """What was observed of one model."""

    logits: torch.Tensor
    parameters: int
    tokens_per_second: float | None
    """For a single user; None if the model reads too few tokens to measure it."""
    loss: float | None
    """Mean negative log-likelihood of a token of the held-out answers; None without such rows."""


def observe(context: Context, chat: Chat, model: Any, rows: Sequence[Row]) -> Observation:
    """Observe a model in evaluation mode. Its logits are taken as it was loaded, the rest in the type that this machine computes in.

    Raises Stopping between two batches of rows.
    """
    logits = logits_of(model, probes(model.config))
    if getattr(model, "quantization_method", None) is None:
        cast_weights(model, compute_dtype("auto", model.device))
    limit = context_length(model.config)
    milliseconds = latency_ms(chat, model, _prompt(chat), limit)
    readable = [row for row, prompt in zip(rows, chat.prompts(rows), strict=True) if limit is None or len(prompt) < limit]
    loss = None
    if readable:
        loss = loss_metrics(reference_losses(context, chat, model, readable, limit, OBSERVED), seed=0)["loss"]
    count = sum(weight.numel() for weight in model.parameters())
    return Observation(logits, count, 1000 / milliseconds if milliseconds else None, loss)


def compared(parent: Observation, made: Observation) -> dict[str, float | None]:
    """Return the metrics of a compression: of the result, of its parent, and what one is to the other."""
    speed = (
        made.tokens_per_second / parent.tokens_per_second if made.tokens_per_second and parent.tokens_per_second else None
    )
    metrics: dict[str, float | None] = {
        "parameters": float(made.parameters),
        "parent_parameters": float(parent.parameters),
        "tokens_per_second": made.tokens_per_second,
        "parent_tokens_per_second": parent.tokens_per_second,
        "speed_ratio": speed,
    }
    if made.loss is not None and parent.loss is not None:
        metrics |= {"parent_loss": parent.loss, "loss_difference": made.loss - parent.loss}
    return metrics


def _prompt(chat: Chat) -> list[int]:
    try:
        return chat.prompts([_ASKED])[0]
    except ChatFault:  # a template may want other turns
        return chat.prompts([Row(id="probe", messages=(), completion=_ASKED[0].content, columns={})])[0]
