"""Estimates what the steps of a plan take that compute with a model and do not train it, from their settings."""

from typing import NamedTuple

from schemas.recipes.compression import CompressionSettings
from schemas.recipes.evaluation import EvaluationSettings
from schemas.recipes.feedback import FeedbackSettings
from schemas.recipes.model import Precision
from schemas.recipes.sampling import SamplingSettings
from services.language_models.precision import compute_dtype, device, physical_cores
from services.trainer.compression.observed import OBSERVED
from services.trainer.modelling.architecture import Architecture
from services.trainer.modelling.compression_memory import Compared, compression_estimate
from services.trainer.modelling.generation_memory import Decoded, InferenceEstimate, generation_estimate, scored_at_once
from services.trainer.modelling.judge_memory import Judged, JudgedBatch, judge_estimate, judged_batch


class LoadedFiles(NamedTuple):
    """A model that a step loads."""

    architecture: Architecture
    files: int
    """Bytes of its files of weights."""
    adapted: bool = False
    """Whether an adapter is merged into it."""


def decoders() -> int:
    """Return how many batches are decoded at once: on a processor every core decodes prompts of its own."""
    return physical_cores() if device().type == "cpu" else 1


def sampling_memory(model: LoadedFiles, sampling: SamplingSettings, prompt: int) -> tuple[Decoded, InferenceEstimate]:
    """Return the estimate of a step of kind sample, whose prompts have at most so many tokens."""
    prompts = min(sampling.prompts, sampling.batch_size * decoders())
    batch = Decoded(prompts, sampling.n, model.architecture.within(prompt), sampling.max_new_tokens, 0, sampling.top_p < 1)
    return batch, _generation(model, batch, "auto")


def evaluation_memory(model: LoadedFiles, settings: EvaluationSettings, row: int) -> tuple[Decoded, InferenceEstimate]:
    """Return the estimate of a step of kind evaluate, whose rows have at most so many tokens, and references as many. The tasks of the
    harness are not counted, because their rows are not known yet."""
    longest = model.architecture.within(row)
    rows = settings.batch_size if settings.rows is None else min(settings.batch_size, settings.rows)
    scored = scored_at_once(model.architecture, rows, longest) if "loss" in settings.metrics else 0
    batch = Decoded(rows * decoders(), 1 + settings.samples, longest, settings.max_new_tokens, scored, False)
    return batch, _generation(model, batch, settings.precision)


def judging_memory(model: LoadedFiles, feedback: FeedbackSettings, texts: Judged) -> tuple[JudgedBatch, InferenceEstimate]:
    """Return the estimate of a step of kind label or score with a judge that has a model."""
    where = device()
    batch = judged_batch(model.architecture, feedback, texts)
    dtype = compute_dtype("auto", where)
    return batch, judge_estimate(model.architecture, feedback, batch, dtype, where.type, model.files)


def compression_memory(
    model: LoadedFiles, settings: CompressionSettings, row: int | None
) -> tuple[Compared, InferenceEstimate]:
    """Return the estimate of a step of kind compress, which compares on rows of at most so many tokens; None: on none."""
    where = device()
    compared = Compared(0, 0) if row is None else Compared(min(OBSERVED, settings.rows), model.architecture.within(row))
    dtype = compute_dtype("auto", where)
    return compared, compression_estimate(model.architecture, settings, compared, dtype, where.type, adapted=model.adapted)


def _generation(model: LoadedFiles, batch: Decoded, precision: Precision) -> InferenceEstimate:
    where = device()
    dtype = compute_dtype(precision, where)
    return generation_estimate(model.architecture, batch, dtype, where.type, adapted=model.adapted, files=model.files)
