"""A service's own events come back from a real broker: they wait for each other and for nobody else, and are applied in order."""

from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from schemas.topics import JOBS
from services.chassis.kafka.publisher import make_producer
from services.chassis.kernel import store
from services.chassis.kernel.consuming import holding, polls
from services.chassis.kernel.records import is_of
from services.chassis.kernel.transaction.batch import Applied, Decider, Poll, apply_batch
from tests.log import read_all
from tests.toy import Toy, until


class Batches:
    """What was applied, batch by batch, of the toy's own jobs."""

    def __init__(self, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
        self._toy = toy
        self.seen: list[list[Any]] = []
        monkeypatch.setattr(polls, "apply_batch", self._apply)

    async def _apply(self, decider: Decider, poll: Poll) -> Applied:
        done = await apply_batch(decider, poll)
        there = [one for partition, group in poll.records.items() if partition not in done.behind for one in group]
        mine = [one for one in there if self._toy.prefix.encode() in (one.key or b"")]
        self.seen += [mine] if mine else []
        return done

    @property
    def own(self) -> list[Any]:
        return [one for batch in self.seen for one in batch if is_of(one, self._toy.domain.source)]


async def test_own_events_that_come_back_are_applied_once_each_after_a_moment(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = Batches(toy, monkeypatch)
    async with toy.running() as service:
        await toy.send(*(toy.requested(str(number)) for number in range(20)))
        await until(lambda: len(batches.own) >= 20, what=lambda: batches.own)
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
    assert len({(one.partition, one.offset) for one in batches.own}) == len(batches.own) == 20


async def test_they_keep_no_request_waiting_and_are_applied_in_order_with_what_another_says_behind_them(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "HOLD_SECONDS", 3600)
    batches = Batches(toy, monkeypatch)
    async with toy.running():
        await until(lambda: _caught_up(toy))
        await toy.send(toy.requested("a"))
        await until(lambda: _logged(toy, 1))
        (own,) = await toy.log()
        await toy.send(toy.requested("b"))
        await until(lambda: _logged(toy, 2))
        assert batches.own == []
        await _say_as_another(toy, own)
        await until(lambda: any(one.headers == own.headers for one in batches.own), what=lambda: batches.own)
    there = [(one.offset, is_of(one, toy.domain.source)) for one in batches.seen[-1] if one.key == own.key]
    assert there[0] == (own.offset, True)
    assert not there[-1][1]


async def test_a_service_that_stops_leaves_them_and_the_next_one_applies_them(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = Batches(toy, monkeypatch)
    with monkeypatch.context() as held:
        held.setattr(holding, "HOLD_SECONDS", 3600)
        async with toy.running():
            await until(lambda: _caught_up(toy))
            await toy.send(*(toy.requested(str(number)) for number in range(5)))
            await until(lambda: _logged(toy, 5))
        assert batches.own == []
    async with toy.running():
        await until(lambda: len(batches.own) >= 5, what=lambda: batches.own)
    assert {tally.refused for tally in (await toy.tallies()).values()} == {1}


async def test_what_a_member_holds_is_not_lost_when_the_group_rebalances(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "HOLD_SECONDS", 1.0)
    batches = Batches(toy, monkeypatch)
    async with toy.running():
        await toy.send(*(toy.requested(str(number)) for number in range(10)))
        await until(lambda: _logged(toy, 10))
        async with toy.running():
            await toy.send(*(toy.requested(str(number)) for number in range(10, 20)))
            await until(lambda: _logged(toy, 20))
        await until(lambda: len({(one.partition, one.offset) for one in batches.own}) == 20)
    for partition in {one.partition for one in batches.own}:
        offsets = [one.offset for one in batches.own if one.partition == partition]
        assert list(dict.fromkeys(offsets)) == sorted(set(offsets))
    assert {tally.refused for tally in (await toy.tallies()).values()} == {1}


async def _logged(toy: Toy, count: int) -> bool:
    return len(await toy.log()) == count


async def _caught_up(toy: Toy) -> bool:
    """Whether all that others have said is applied, so that what comes next comes alone."""
    ends = {one.partition: one.offset + 1 for one in await read_all(toy.settings.kafka_bootstrap, JOBS.name)}
    async with toy.engine.connect() as connection:
        positions = await store.positions(connection)
    return all(positions.get((JOBS.name, partition), 0) >= end for partition, end in ends.items())


async def _say_as_another(toy: Toy, own: Any) -> None:
    producer: AIOKafkaProducer = make_producer(toy.settings.cluster, "another")
    await producer.start()
    headers = [(name, b"another" if name in ("ce_source", "ce_id") else value) for name, value in own.headers]
    await producer.send_and_wait(JOBS.name, own.value, own.key, headers=headers)
    await producer.stop()
