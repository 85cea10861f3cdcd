"""Measures how long a model takes for a token when it answers a single user."""

import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from services.language_models.chat_format.chat import Chat
from services.language_models.generation import SamplingParams, generate

_TIMED_TOKENS = 24
_LEAST_TIMED_TOKENS = 4


def latency_ms(chat: Chat, model: Any, prompt: Sequence[int], limit: int | None) -> float | None:
    """Return the median milliseconds per token when answers are generated one at a time. `limit`: tokens that the model reads.

    None if the prompt leaves room for too few tokens to measure.
    """
    times: list[float] = []
    room = _TIMED_TOKENS if limit is None else min(_TIMED_TOKENS, limit - len(prompt))
    if room < _LEAST_TIMED_TOKENS:
        return None
    decoding = SamplingParams(frozenset(), chat.pad_id, room)
    generate(model, [prompt], [[None]], decoding, on_token=lambda: times.append(time.perf_counter()))
    return statistics.median(later - earlier for earlier, later in pairwise(times[1:])) * 1000
