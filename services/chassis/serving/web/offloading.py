"""Parses large inputs in a thread, one at a time, so that the event loop keeps half the time and sends heartbeats."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

LOOP_BYTES = 32 * 1024
"""Inputs of up to this many bytes are read on the loop, which takes some milliseconds at worst."""
_P = ParamSpec("_P")
_R = TypeVar("_R")
_ONE = ThreadPoolExecutor(1, "large-bodies")


async def in_thread_if_large(size: int, read: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Call `read` for an input of `size` bytes; return or raise what it does."""
    if size <= LOOP_BYTES:
        return read(*args, **kwargs)
    return await asyncio.wrap_future(_ONE.submit(read, *args, **kwargs))
