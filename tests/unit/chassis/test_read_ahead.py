"""Reading runs one step ahead of what is done with it, and ends with it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from services.chassis.replay.reading import read_ahead


class Source:
    """Numbers, and how many were asked for."""

    def __init__(self, fails_at: int = 99) -> None:
        self.read, self.closed, self.fails_at = 0, False, fails_at

    async def numbers(self, count: int) -> AsyncGenerator[int, None]:
        try:
            for number in range(count):
                await asyncio.sleep(0)
                if number == self.fails_at:
                    raise OSError("the broker is away")
                self.read += 1
                yield number
        finally:
            self.closed = True


async def test_every_item_comes_once_in_order() -> None:
    source = Source()
    assert [number async for number in read_ahead(source.numbers(5))] == [0, 1, 2, 3, 4]
    assert source.closed


async def test_one_item_is_read_while_another_is_worked_on_and_no_more() -> None:
    source = Source()
    async with aclosing(read_ahead(source.numbers(5))) as numbers:
        async for _ in numbers:
            for _turn in range(20):
                await asyncio.sleep(0)
            assert source.read == 2
            break
    assert source.closed


async def test_what_reading_raises_comes_after_the_items_before_it() -> None:
    numbers = read_ahead(Source(fails_at=2).numbers(5))
    assert [await anext(numbers), await anext(numbers)] == [0, 1]
    with pytest.raises(OSError, match="the broker is away"):
        await anext(numbers)


async def test_what_work_raises_ends_reading() -> None:
    source = Source()

    async def work() -> None:
        async with aclosing(read_ahead(source.numbers(5))) as numbers:
            async for _ in numbers:
                raise RuntimeError("work")

    with pytest.raises(RuntimeError, match="work"):
        await work()
    assert source.closed


async def test_a_cancel_ends_reading() -> None:
    source = Source()

    async def work() -> None:
        async for _ in read_ahead(source.numbers(5)):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _turn in range(20):
        await asyncio.sleep(0)
    assert source.read == 2
