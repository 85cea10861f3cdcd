"""Samples answers while a model is trained, and reports the steps meanwhile."""

from collections.abc import Callable, Sequence
from typing import Any

from schemas.recipes.sampled import SampledSettings
from services.chassis.executor.child import Context
from services.language_models.chat_format.chat import Chat
from services.language_models.generation import Rng, SamplingParams
from services.trainer.engine.own_sampling import Sample
from services.trainer.steps.answering import answers_of


def sampler(
    context: Context, chat: Chat, settings: SampledSettings, draws: Callable[[int, int], Sequence[Rng]], done: int, of: int
) -> Sample:
    """Return what samples the answers of each optimiser step, of which `done` are done and `of` are to do in all.

    `draws` gives the draws of a group from the step's key and the number of the prompt.
    """
    decoding = SamplingParams(
        chat.stop_ids, chat.pad_id, settings.max_new_tokens, settings.temperature, settings.top_p, keep_end=True
    )

    def sample(model: Any, asked: Sequence[Sequence[int]], key: int) -> list[list[list[int]]]:
        nonlocal done
        made = answers_of(
            context, model, asked, lambda number: draws(key, number), decoding, len(asked),
            on_batch=lambda *_: context.progress(done, of),
        )  # fmt: skip
        done += 1
        return made

    return sample
