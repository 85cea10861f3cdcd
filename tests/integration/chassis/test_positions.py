"""Whatever goes wrong between a poll and its transaction, a consumer on a real broker applies every record once, in order."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from sqlalchemy import text

from schemas.topics import REQUESTS, Topic, dead_letter_topic
from services.chassis.kernel.consuming import polls, subscription
from services.chassis.kernel.consuming.consumer import Consumer
from services.chassis.kernel.consuming.polls import PollHandler
from services.chassis.kernel.statements import INSERT_POSITION
from services.chassis.kernel.transaction.batch import Poll, apply_batch
from services.chassis.process.health import Health
from tests.toy import Toy, until

Apply = Callable[..., Awaitable[Any]]


def failing(times: int, error: Callable[[], BaseException]) -> Apply:
    """`apply_batch`, which fails so often first when it is given records."""
    real, failed = apply_batch, 0

    async def apply(decider: Any, poll: Poll) -> Any:
        nonlocal failed
        prefix, records = decider.domain.prefix, poll.records.values()
        if failed < times and any(str(record.key).count(prefix) for group in records for record in group):
            failed += 1
            raise error()
        return await real(decider, poll)

    return apply


async def sends_and_sees_all(toy: Toy, jobs: int = 30) -> None:
    """Send a few at a time, so that there are many polls; every job is answered once."""
    for start in range(0, jobs, 5):
        await toy.send(*(toy.requested(f"{number:02}") for number in range(start, start + 5)))

    async def all_answered() -> bool:
        return len(await toy.tallies()) == jobs

    await until(all_answered)
    assert {(tally.requests, tally.refused) for tally in (await toy.tallies()).values()} == {(1, 1)}


async def test_an_error_without_a_text_loses_nothing(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncpg's time-outs have none."""
    async with toy.running() as service:
        monkeypatch.setattr(polls, "apply_batch", failing(3, TimeoutError))
        await sends_and_sees_all(toy)
        await until(lambda: service.health.ready, what=lambda: service.health.missing)


async def test_an_error_that_cannot_even_be_said_loses_nothing(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> float:
        raise RuntimeError("what comes after a failure fails too")

    with structlog.testing.capture_logs() as logs:
        async with toy.running():
            monkeypatch.setattr(polls, "apply_batch", failing(3, TimeoutError))
            monkeypatch.setattr(PollHandler, "_failed", broken)
            await sends_and_sees_all(toy)
    assert [entry["event"] for entry in logs].count("a poll could not be handled; it is read again") == 3


async def test_a_position_of_a_partition_that_does_not_exist_troubles_nobody(toy: Toy) -> None:
    async with toy.engine.begin() as connection:
        await connection.execute(INSERT_POSITION, {"topic": REQUESTS.name, "partition": 99})
        await connection.execute(text("UPDATE position SET next_offset = 7"))
    async with toy.running() as service:
        await sends_and_sees_all(toy, jobs=5)
        assert service.health.ready, service.health.missing


async def test_partitions_that_are_added_are_read_without_a_restart(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "NOTICED_MS", 500)

    async def admit() -> str:
        return "toy"

    topic = dead_letter_topic(toy.name)
    health = Health(toy.name, ())
    consumer = Consumer(toy.settings, toy.name, toy.domain, None, [topic], toy.engine, toy.transactions, health, admit)
    stop = asyncio.Event()
    running = asyncio.ensure_future(consumer.run(stop))
    try:
        await until(lambda: consumer.assignment.cursors.keys() == {(topic.name, 0)} and not consumer.unsought())
        await _add_a_partition(toy, topic)
        await until(
            lambda: consumer.assignment.cursors.keys() == {(topic.name, 0), (topic.name, 1)} and not consumer.unsought(), 90
        )
    finally:
        stop.set()
        await running


async def _add_a_partition(toy: Toy, topic: Topic) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=toy.settings.kafka_bootstrap)
    await admin.start()
    try:
        await admin.create_partitions({topic.name: NewPartitions(2)})
    finally:
        await admin.close()


async def test_a_service_one_of_whose_loops_keeps_failing_is_not_ready(toy: Toy) -> None:
    async def faulty(_: asyncio.Event) -> None:
        raise RuntimeError("this loop is broken")

    runtime = toy.runtime()
    with structlog.testing.capture_logs():
        async with runtime.run([faulty]):
            await until(lambda: "this loop is broken" in runtime.health.missing.get("running", ""))


async def test_an_idle_service_commits_no_offsets(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[float] = []
    real, clock = AIOKafkaConsumer.commit, asyncio.get_running_loop().time

    async def commit(*arguments: Any) -> None:
        commits.append(clock())
        await real(*arguments)

    monkeypatch.setattr(AIOKafkaConsumer, "commit", commit)
    async with toy.running():
        await sends_and_sees_all(toy, jobs=5)
        await until(lambda: commits and clock() - commits[-1] > 4, 60, what=lambda: f"{len(commits)} commits")
