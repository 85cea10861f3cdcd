"""What takes long for its size runs beside the event loop that heartbeats: one at a time, so that the loop keeps half the time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

LOOP_BYTES = 32 * 1024
"""So many bytes are read on the loop: some milliseconds at worst."""
_P = ParamSpec("_P")
_R = TypeVar("_R")
_ONE = ThreadPoolExecutor(1, "large-bodies")


async def beside_the_loop(size: int, read: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """What `read` returns or raises, for an input of `size` bytes."""
    if size <= LOOP_BYTES:
        return read(*args, **kwargs)
    return await asyncio.wrap_future(_ONE.submit(read, *args, **kwargs))
