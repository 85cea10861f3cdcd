"""A topic that takes less than our batches, and one relay at a time that is alive."""

import asyncio
from contextlib import suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from schemas.envelope import Event
from schemas.topics import JOBS
from services.chassis.kafka.publisher import BrokerAway, Publisher
from services.chassis.kernel import metrics
from services.chassis.kernel.relay import outbox
from services.chassis.kernel.relay import relay as relaying
from services.chassis.kernel.relay.outbox import OutboxBacklog
from services.chassis.postgres.exclusive import exclusive
from services.chassis.postgres.locks import RELAY_LOCK
from tests.integration.chassis.test_relay import holds, refusal, sent, to_send
from tests.limited import limited
from tests.toy import Toy, until


async def test_a_topic_that_takes_less_than_our_batches_gets_smaller_ones_and_one_key_alone_waits(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "_LIMIT_SECONDS", 0.5)
    events = [refusal(toy, f"{number % 7}", "x" * 1000) for number in range(400)]
    large, behind = refusal(toy, "large", "x" * 20_000), refusal(toy, "large")
    async with limited(toy.settings.cluster, JOBS.name, 16384), toy.running() as service:
        ids = await to_send(toy, *events)
        await to_send(toy, large, behind)
        await until(lambda: holds(toy, 2))
        assert await sent(toy) == {f"{key}": ids[key::7] for key in range(7)}
        await until(lambda: not service.health.ready)
        reason = service.health.conditions["relaying"].reason
        assert toy.prefix + "large" in reason
        assert f"a record may have at most 16384, max.message.bytes of {JOBS.name}" in reason
    async with toy.running() as service:
        await until(lambda: holds(toy, 0))
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
    assert (await sent(toy))["large"] == [large.id, behind.id]


async def test_it_heals_without_a_restart_when_the_limit_goes(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "_LIMIT_SECONDS", 0.2)
    large = refusal(toy, "large", "x" * 20_000)
    async with toy.running() as service:
        async with limited(toy.settings.cluster, JOBS.name, 16384):
            await to_send(toy, large)
            await until(lambda: "max.message.bytes" in service.health.conditions["relaying"].reason)
        await until(lambda: holds(toy, 0))
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
    assert (await sent(toy))["large"] == [large.id]


async def test_a_session_that_says_nothing_loses_its_lock_though_its_connection_stays_and_one_with_a_heartbeat_keeps_it(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with exclusive(toy.engine) as frozen, exclusive(toy.engine) as quiet, exclusive(toy.engine) as other:
        assert await frozen.take(RELAY_LOCK)
        assert await quiet.take(RELAY_LOCK + 1_000_000)
        assert not await other.take(RELAY_LOCK)
        monkeypatch.setattr(frozen, "_spoke_at", float("inf"))  # its heartbeat sleeps, as in a frozen process
        await until(lambda: other.take(RELAY_LOCK))
        with pytest.raises(DBAPIError):
            await frozen.execute(text("SELECT 1"))
        assert not await other.take(RELAY_LOCK + 1_000_000)
        await quiet.execute(text("SELECT 1"))


async def test_a_standby_exports_the_outbox_and_is_not_ready_when_its_oldest_event_is_old(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_OLD_SECONDS", 0.5)
    async with exclusive(toy.engine) as somebody:
        assert await somebody.take(RELAY_LOCK)
        await to_send(toy, refusal(toy, "a"), refusal(toy, "b"))
        service = toy.service()
        async with service.lifespan():
            await until(lambda: "2 events wait in the outbox" in service.health.missing.get("relaying", ""))
            assert metrics.OUTBOX_ROWS.labels(toy.name)._value.get() == 2
            assert metrics.OUTBOX_SECONDS.labels(toy.name)._value.get() > 0


def test_an_outbox_is_overdue_when_its_oldest_row_is_old_and_stays() -> None:
    old = OutboxBacklog(rows=3, first=7, seconds=40.0)
    assert "3 events wait" in str(old.overdue(OutboxBacklog(2, 7, 39.0)))
    assert old.overdue(OutboxBacklog(2, 5, 39.0)) is None  # it moves
    assert old.overdue(None) is None
    assert OutboxBacklog(1, 7, 1.0).overdue(OutboxBacklog(1, 7, 0.5)) is None
    assert OutboxBacklog(0, None, 0.0).overdue(OutboxBacklog(0, None, 0.0)) is None


async def test_a_request_that_the_broker_refuses_for_good_costs_no_later_one_of_its_partition(toy: Toy) -> None:
    publisher, stop = Publisher(toy.settings.cluster, "toy-edge"), asyncio.Event()
    running = asyncio.create_task(publisher.run(stop))
    try:
        async with limited(toy.settings.cluster, JOBS.name, 16384):
            await until(lambda: is_sent(publisher, refusal(toy, "a")))
            with pytest.raises(BrokerAway, match="MessageSizeTooLarge"):
                await publisher.publish(refusal(toy, "a", "x" * 20_000))
            await until(lambda: is_sent(publisher, refusal(toy, "a")))
    finally:
        stop.set()
        await running


async def is_sent(publisher: Publisher, event: Event) -> bool:
    with suppress(BrokerAway):
        await publisher.publish(event)
        return True
    return False
