"""Reads and decodes the next chunk of the log while the database works on the one before, so that neither waits for the other."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

_Item = TypeVar("_Item")


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
