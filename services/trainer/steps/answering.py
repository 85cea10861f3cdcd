"""Generates answers for sampling and evaluation: within the model's context length, and interruptible at each token."""

from collections.abc import Callable, Sequence
from typing import Any

from schemas.reasons import Reason
from services.chassis.executor.child import Context, Stopping, UserFault
from services.language_models.generation import Rng, SamplingParams, generate
from services.language_models.lengths import context_length


def answers_of(
    context: Context,
    model: Any,
    prompts: Sequence[Sequence[int]],
    rngs: Callable[[int], Sequence[Rng]],
    decoding: SamplingParams,
    batch_size: int,
    *,
    on_batch: Callable[[int, int], None],
) -> list[list[list[int]]]:
    """Return the token ids of the answers to each prompt, one for each generator of random numbers, of which `rngs` gives those of a prompt by its number.

    `on_batch` is called with the prompts answered and tokens made. Batches are halved for each attempt that ran out of
    memory. Raises Stopping between two tokens, and UserFault if prompt and answer exceed the model's context length.
    """
    _refuse_too_long(model, prompts, decoding)

    def look() -> None:
        if context.stopping:
            raise Stopping

    return generate(
        model, prompts, [rngs(number) for number in range(len(prompts))], decoding,
        batch_size=max(1, batch_size >> context.task.memory_failures), on_token=look, on_batch=on_batch,
    )  # fmt: skip


def _refuse_too_long(model: Any, prompts: Sequence[Sequence[int]], decoding: SamplingParams) -> None:
    limit = context_length(model.config)
    longest = max(map(len, prompts))
    if limit is not None and longest + decoding.max_new_tokens > limit:
        raise UserFault(
            Reason(
                field="max_new_tokens",
                value=str(decoding.max_new_tokens),
                message=f"with the longest prompt ({longest} tokens) it exceeds the {limit} tokens that the model reads",
                remedy="lower max_new_tokens of sampling or evaluation, or shorten the prompts",
            )
        )
