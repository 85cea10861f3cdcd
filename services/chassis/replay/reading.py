"""Reads and decodes the next chunk of the log while the database works on the one before, and gives way to all else the process does."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")
GIVE_WAY_EVERY = 256
"""Records that are decoded or folded without a pause: a part of the log has ten thousand, and heartbeats wait meanwhile."""


async def in_parts(items: Sequence[_Item]) -> AsyncGenerator[Sequence[_Item], None]:
    """Yields all items in order, in parts that are handled without a pause."""
    for first in range(0, len(items), GIVE_WAY_EVERY):
        await give_way()
        yield items[first : first + GIVE_WAY_EVERY]


async def give_way() -> None:
    """Let other tasks of the event loop run: the heartbeats of the run and of consumers, and health checks."""
    await asyncio.sleep(0)


async def read_ahead(items: AsyncGenerator[_Item, None]) -> AsyncGenerator[_Item, None]:
    """Yields the same items in the same order, and reads one item ahead. A read error is raised in the turn of its item."""

    async def following() -> tuple[_Item] | None:
        async for item in items:
            return (item,)
        return None

    coming = asyncio.create_task(following())
    try:
        while (found := await coming) is not None:
            coming = asyncio.create_task(following())
            yield found[0]
    finally:
        coming.cancel()
        await asyncio.wait([coming])
        if not coming.cancelled():
            coming.exception()  # seen, so that asyncio does not report it
        await items.aclose()
