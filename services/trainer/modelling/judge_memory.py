"""Estimates the most memory that a judge with a model of its own takes, without loading a weight.

The judges are those of the feedback service: by likelihood, by a question, or a reward model.
"""

from typing import NamedTuple

import torch

from schemas.recipes.feedback import FeedbackSettings
from services.language_models.logits import BYTES_PER_LOGIT, rows_of_logits
from services.trainer.modelling.architecture import Architecture
from services.trainer.modelling.generation_memory import (
    InferenceEstimate,
    activation_bytes,
    at_its_peak,
    cache_bytes,
)

_REPEATED = 2
"""What the cache of a principle takes that is repeated for each text: the new one, and the one that it was copied from."""
_WORDS = 120
"""Tokens of the fixed words of a question, at the most."""
_BYTES_OF_TOKEN = 3
"""Bytes of text for a token of the rubric, at the least."""


class Judged(NamedTuple):
    """The longest texts that a judge reads, in tokens."""

    prompt: int
    answer: int
    together: int
    """Answers in one question."""


class JudgedBatch(NamedTuple):
    """What a judge reads at once."""

    rows: int
    read: int
    """Tokens of each row."""
    scored: int
    """How many of them have logits."""
    before: int
    """Tokens before them, which a cache holds."""


def judge_estimate(
    architecture: Architecture,
    feedback: FeedbackSettings,
    batch: JudgedBatch,
    dtype: torch.dtype,
    device: str,
    files: int = 0,
) -> InferenceEstimate:
    """Return the estimate of a judge. Raises BaseFault as building the model does."""
    rows, read, scored, before = batch
    return at_its_peak(
        architecture,
        dtype,
        device,
        cache=_REPEATED * cache_bytes(architecture, rows * (before + read), dtype) if before else 0,
        logits=BYTES_PER_LOGIT * architecture.vocabulary * rows * scored,
        activations=activation_bytes(architecture, rows * read, dtype) + rows * read**2,
        full=feedback.judge.reward_model is not None,
        files=files,
    )


def judged_batch(architecture: Architecture, feedback: FeedbackSettings, texts: Judged) -> JudgedBatch:
    """Return the largest batch. A text that the model cannot read is not judged, so none is longer than its context."""
    judge, rubric = feedback.judge, feedback.rubric
    criteria = max(_tokens(rubric.principle), _tokens(rubric.opposite))
    if judge.reward_model is not None:
        return JudgedBatch(judge.batch_size, architecture.within(texts.prompt + texts.answer), 0, 0)
    if judge.scoring == "likelihood":
        answer = architecture.within(texts.answer)
        rows = min(judge.batch_size, rows_of_logits(answer, architecture.vocabulary))
        return JudgedBatch(rows, answer, answer, criteria)
    asked = _tokens(rubric.principle) + _tokens(rubric.opposite) + texts.prompt + texts.together * texts.answer + _WORDS
    rows = min(judge.batch_size, rows_of_logits(1, architecture.vocabulary))
    return JudgedBatch(rows, architecture.within(asked), 1, 0)


def _tokens(text: str) -> int:
    return -(-len(text.encode()) // _BYTES_OF_TOKEN)
