"""The relay: order per key in batches, the partitions that any producer would choose, and an event that no record can hold."""

import asyncio

import pytest
from sqlalchemy import text

from schemas.bounds import RECORD_BYTES
from schemas.envelope import Event, encode
from schemas.jobs import JobRejected
from schemas.reasons import Reason
from schemas.topics import JOBS
from services.chassis.kafka.publisher import make_producer, outside_event
from services.chassis.kernel.relay import relay as relaying
from services.chassis.kernel.transaction.writing import fill_outbox
from tests.toy import Toy, until


def refusal(toy: Toy, name: str, message: str = "no") -> Event:
    """An event of the length of `message` on the topic of jobs."""
    job_id = toy.prefix + name
    reasons = (Reason(field="", message=message, remedy=""),)
    return outside_event("outside", JobRejected(job_id=job_id, reasons=reasons), correlation_id=job_id)


async def to_send(toy: Toy, *events: Event) -> list[str]:
    """Commit to the outbox; the ids in order."""
    async with toy.engine.begin() as connection:
        await fill_outbox(connection, events)
    return [event.id for event in events]


async def sent(toy: Toy) -> dict[str, list[str]]:
    """Ids on the log by job, in order."""
    found: dict[str, list[str]] = {}
    for record in await toy.log():
        found.setdefault(record.key.decode().removeprefix(toy.prefix), []).append(dict(record.headers)["ce_id"].decode())
    return found


async def holds(toy: Toy, count: int) -> bool:
    return bool(await toy.scalar("SELECT count(*) FROM outbox") == count)


async def test_many_events_leave_once_each_in_order_per_key_in_more_than_one_batch_per_partition(toy: Toy) -> None:
    events = [refusal(toy, f"{number % 5}", "x" * 2000) for number in range(1500)]
    ids = await to_send(toy, *events)
    async with toy.running():
        await until(lambda: holds(toy, 0))
    assert await sent(toy) == {f"{key}": ids[key::5] for key in range(5)}


async def test_a_key_lies_in_the_partition_that_any_producer_would_choose(toy: Toy) -> None:
    events = [refusal(toy, f"{number}") for number in range(100)]
    await to_send(toy, *events)
    async with toy.running():
        await until(lambda: holds(toy, 0))
    relayed = {record.key: record.partition for record in await toy.log()}
    producer = make_producer(toy.settings.cluster, "outside")
    await producer.start()
    chosen = {}
    for event in events:
        value, headers = encode(event)
        key = event.correlation_id.encode()
        chosen[key] = (await producer.send_and_wait(JOBS.name, value, key, headers=headers)).partition
    await producer.stop()
    assert relayed == chosen


async def test_an_event_too_large_for_a_record_stops_its_key_alone_and_nothing_is_sent_again_and_again(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "_POLL_SECONDS", 0.05)
    before, large, after, other = (refusal(toy, name) for name in ("large", "large", "large", "other"))
    async with toy.running() as service:
        async with toy.engine.begin() as connection:  # no row that this release writes is so large
            await fill_outbox(connection, [before, large, after, other])
            values = {"payload": "x" * RECORD_BYTES, "id": large.id}
            await connection.execute(text("UPDATE outbox SET payload = :payload WHERE ce_id = :id"), values)
        await until(lambda: holds(toy, 2))
        drains = [refusal(toy, f"{number}") for number in range(3)]
        for event in drains:
            await to_send(toy, event)
            await until(lambda: holds(toy, 2))
        assert "a record may have" in service.health.conditions["relaying"].reason
    logged = await sent(toy)
    assert (logged["large"], logged["other"]) == ([before.id], [other.id])


async def test_an_event_committed_long_after_later_ones_were_sent_still_leaves(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "_POLL_SECONDS", 0.1)
    late = refusal(toy, "late")
    async with toy.running(), toy.engine.connect() as slow:
        await fill_outbox(slow, [late])
        for number in range(5):  # long enough for the relay to leave those places behind
            await to_send(toy, refusal(toy, f"{number}"))
            await until(lambda number=number: sent_count(toy, number + 1))
            await asyncio.sleep(0.15)
        await slow.commit()
        await until(lambda: sent_count(toy, 6))
    assert (await sent(toy))["late"] == [late.id]


async def sent_count(toy: Toy, count: int) -> bool:
    return len(await sent(toy)) == count


async def test_an_event_whose_transaction_ends_late_still_leaves_before_the_next_one_of_its_key(toy: Toy) -> None:
    """A slow commit, or a frozen process: others are sent meanwhile, and the next one of the key waited for its lock."""
    first, second = refusal(toy, "late"), refusal(toy, "late")
    async with toy.running():
        async with toy.engine.connect() as slow:
            await fill_outbox(slow, [first])
            for number in range(8):
                await to_send(toy, refusal(toy, f"other-{number}"))
                await asyncio.sleep(relaying._POLL_SECONDS / 2)
            await until(lambda: holds(toy, 0))
            await slow.commit()
            await to_send(toy, second)
        await until(lambda: holds(toy, 0))
    assert (await sent(toy))["late"] == [first.id, second.id]
