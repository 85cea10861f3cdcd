"""Records are taken from the fetcher while a poll is handled, in order, and up to a limit."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import ConsumerStoppedError, TopicAuthorizationFailedError

from services.chassis.kernel.consuming import prefetch
from services.chassis.kernel.consuming.client import Client
from services.chassis.kernel.consuming.prefetch import Prefetch
from tests.log import HeldRecord

ONE, OTHER = TopicPartition("neuroweaver.requests", 0), TopicPartition("neuroweaver.requests", 1)
PATIENCE, MOST = 60.0, 500


def records(partition: TopicPartition, *offsets: int) -> dict[TopicPartition, list[Any]]:
    return {partition: [HeldRecord(partition.topic, partition.partition, offset, 0, b"k", b"v", ()) for offset in offsets]}


class Fetcher:
    """Has what it is given; counts the polls that found nothing and wait."""

    def __init__(self) -> None:
        self.fetched = asyncio.Queue[Any]()
        self.asked: list[int] = []

    async def poll(self, _seconds: float, most: int) -> Any:
        self.asked.append(most)
        found = await self.fetched.get()
        if isinstance(found, Exception):
            raise found
        return found

    async def until_empty(self) -> None:
        """All that was fetched is taken, and whoever took it has gone on."""
        while not self.fetched.empty():
            await asyncio.sleep(0)
        await asyncio.sleep(0)


async def offsets(taking: Prefetch, most: int = MOST) -> dict[TopicPartition, list[int]]:
    return {partition: [one.offset for one in found] for partition, found in (await taking.take(PATIENCE, most)).items()}


async def test_all_that_arrives_while_a_poll_is_handled_comes_with_the_next() -> None:
    fetcher = Fetcher()
    taking = Prefetch(fetcher.poll)
    fetcher.fetched.put_nowait(records(ONE, 7))
    assert await offsets(taking) == {ONE: [7]}
    for found in (records(ONE, 8), records(OTHER, 3), records(ONE, 9, 10)):
        fetcher.fetched.put_nowait(found)
        await fetcher.until_empty()
    assert taking.first(ONE) == 8
    assert await offsets(taking) == {ONE: [8, 9, 10], OTHER: [3]}
    await taking.stop()


async def test_no_more_is_taken_than_a_poll_may_return() -> None:
    fetcher = Fetcher()
    taking = Prefetch(fetcher.poll)
    fetcher.fetched.put_nowait(records(ONE, 0))
    assert await offsets(taking, 3) == {ONE: [0]}
    for found in (records(ONE, 1, 2), records(ONE, 3), records(ONE, 4)):
        fetcher.fetched.put_nowait(found)
    while fetcher.fetched.qsize() > 1:
        await asyncio.sleep(0)
    assert (fetcher.asked, fetcher.fetched.qsize()) == ([3, 2, 1], 1)
    assert await offsets(taking, 3) == {ONE: [1, 2, 3]}
    assert await offsets(taking, 3) == {ONE: [4]}
    await taking.stop()


async def test_a_poll_that_may_return_fewer_than_were_taken_leaves_the_rest_for_the_next() -> None:
    fetcher = Fetcher()
    taking = Prefetch(fetcher.poll)
    fetcher.fetched.put_nowait(records(ONE, 0))
    assert await offsets(taking) == {ONE: [0]}
    fetcher.fetched.put_nowait({**records(ONE, 1, 2), **records(OTHER, 7, 8)})
    await fetcher.until_empty()
    assert await offsets(taking, 2) == {ONE: [1, 2]}
    assert (taking.first(ONE), taking.first(OTHER)) == (None, 7)
    assert await offsets(taking, 1) == {OTHER: [7]}
    assert await offsets(taking, 2) == {OTHER: [8]}
    await taking.stop()


async def test_records_behind_a_gap_come_with_a_poll_of_their_own() -> None:
    fetcher = Fetcher()
    taking = Prefetch(fetcher.poll)
    for found in (records(ONE, 0), records(ONE, 1), records(ONE, 5), records(OTHER, 2)):
        fetcher.fetched.put_nowait(found)
    told = [await offsets(taking)]
    while sum(len(found) for one in told for found in one.values()) < 4:
        told.append(await offsets(taking))
    assert not any({1, 5} <= set(one.get(ONE, ())) for one in told)
    assert [offset for one in told for offset in one.get(ONE, ())] == [0, 1, 5]
    await taking.stop()


async def test_a_poll_that_fails_is_raised_behind_the_records_that_were_taken_before_it() -> None:
    fetcher = Fetcher()
    taking = Prefetch(fetcher.poll)
    fetcher.fetched.put_nowait(records(ONE, 0))
    assert await offsets(taking) == {ONE: [0]}
    for found in (records(ONE, 1), KeyError("corrupt")):
        fetcher.fetched.put_nowait(found)
    await fetcher.until_empty()
    assert await offsets(taking) == {ONE: [1]}
    with pytest.raises(KeyError, match="corrupt"):
        await offsets(taking)
    fetcher.fetched.put_nowait(records(ONE, 2))
    assert await offsets(taking) == {ONE: [2]}
    await taking.stop()


async def test_a_consumer_that_stopped_polling_takes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "_SECONDS", -PATIENCE)
    fetcher = Fetcher()
    taking = Prefetch(fetcher.poll)
    assert await taking.take(0.0, MOST) == {}
    assert fetcher.asked == []
    await taking.stop()


async def test_a_poll_that_failed_has_ended_also_for_the_group() -> None:
    """Otherwise aiokafka assumes that a poll runs, and a handler that hangs behind it keeps its partitions for ever."""
    client = Client("toy", lambda: None, bootstrap_servers="127.0.0.1:1", group_id="g")
    client._coordinator = SimpleNamespace(check_errors=lambda: None)
    client._fetcher = SimpleNamespace(fetched_records=refuse)
    client.last_stable_offset = lambda _: None
    client._prefetch._add(records(ONE, 7))
    assert [one.offset for one in (await client.getmany())[ONE]] == [7]
    while client._prefetch._failed is None:
        await asyncio.sleep(0)
    idle = client._subscription.fetcher_idle_time
    client._closed = True
    assert idle > 0


async def refuse(*_: Any, **__: Any) -> None:
    raise TopicAuthorizationFailedError


async def test_what_was_taken_of_a_partition_that_is_read_anew_is_dropped() -> None:
    client = Client("toy", lambda: None, bootstrap_servers="127.0.0.1:1", group_id="g")
    client._closed = True
    client._fetcher = type("Fetcher", (), {"seek_to": lambda *_: None})()
    client._prefetch._add({**records(ONE, 7, 8), **records(OTHER, 3)})
    assert (await client.position(ONE), await client.position(OTHER)) == (7, 3)
    client.seek(ONE, 2)
    assert (client._prefetch.first(ONE), await client.position(OTHER)) == (None, 3)


async def test_what_was_taken_is_dropped_when_its_partitions_are_revoked() -> None:
    client = Client("toy", lambda: None, bootstrap_servers="127.0.0.1:1", group_id="g")
    client._closed = True
    client._coordinator = SimpleNamespace(check_errors=lambda: None)
    client._taken_of = SimpleNamespace(active=False)
    client._prefetch._add(records(ONE, 7))
    with pytest.raises(ConsumerStoppedError):
        await client.getmany()
    assert client._prefetch.first(ONE) is None
