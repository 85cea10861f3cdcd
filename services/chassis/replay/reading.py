"""The next part of the log is read and decoded while the database works on the one before: neither waits for the other."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

_Item = TypeVar("_Item")


async def read_ahead(items: AsyncGenerator[_Item, None]) -> AsyncGenerator[_Item, None]:
    """The same items in the same order, one of them read beforehand. Raises what reading raises, when its turn comes."""

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
