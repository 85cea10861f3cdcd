"""A service reads on only in the log that it was reading, and only where nothing unread was removed; it says so and waits for a word."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from schemas.discards import RecordDiscarded
from schemas.envelope import Event, encode
from schemas.topics import DISCARDS, JOBS, PROGRESS, REQUESTS
from services.chassis.kafka.metadata import ask_once
from services.chassis.kafka.publisher import make_producer
from services.chassis.kernel import log
from services.chassis.kernel.consuming.identity.moving import start_over
from services.chassis.kernel.log import bounds
from services.chassis.kernel.operations import discards
from services.chassis.kernel.operations.partitions.listing import PartitionView, listed
from services.chassis.kernel.operations.partitions.stepping import (
    CannotStepOver,
    NotStopped,
    SteppedOver,
    step_over,
)
from services.chassis.kernel.records import Partition
from services.chassis.process.metrics import REGISTRY
from services.chassis.replay import rebuild as replay
from services.chassis.replay.checks import ReplayRefused
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.service import Service
from services.devstack.stack import DevStack
from tests.log import read_events
from tests.recreating import recreate, remove_below
from tests.toy import Toy, until

PLACE: Partition = (REQUESTS.name, 3)


@pytest.fixture
def servers(own_stack: DevStack) -> DevStack:
    return own_stack


async def send(toy: Toy, *events: Event, to: Partition = PLACE, **headers: str) -> None:
    """To one partition."""
    producer = make_producer(toy.settings.cluster, "outside")
    await producer.start()
    for event in events:
        value, known = encode(event)
        sent = {**dict(known), **{name: said.encode() for name, said in headers.items()}}
        await producer.send_and_wait(to[0], value, event.correlation_id.encode(), to[1], headers=list(sent.items()))
    await producer.stop()


async def known(toy: Toy, count: int) -> bool:
    return len(await toy.tallies()) == count


async def stands(service: Service, condition: str) -> str:
    """Why the condition does not hold, as soon as it does not."""
    await until(lambda: service.health.reason(condition), what=lambda: service.health.missing)
    return str(service.health.reason(condition))


async def view(toy: Toy, place: Partition = PLACE) -> PartitionView:
    views = await listed(toy.engine, toy.runtime().reading)
    return next(one for one in views if (one.topic, one.partition) == place)


async def goes_on(toy: Toy, place: Partition = PLACE) -> SteppedOver:
    return await step_over(toy.engine, toy.runtime().reading, place, "the tests say so", "ada")


async def execute(toy: Toy, statement: str) -> None:
    async with toy.engine.begin() as connection:
        await connection.execute(text(statement))


async def facts(toy: Toy) -> list[str]:
    events = await read_events(toy.settings.kafka_bootstrap, DISCARDS.name)
    return [event.type for event in events if event.source == toy.domain.source]


async def test_a_topic_that_is_made_again_while_a_service_runs_stops_it_until_it_is_accepted_and_no_request_is_lost(
    toy: Toy,
) -> None:
    async with toy.running() as service:
        await send(toy, *(toy.requested(f"before-{number}") for number in range(5)))
        await until(lambda: known(toy, 5))
        await recreate(toy.settings.cluster, REQUESTS)
        await send(toy, *(toy.requested(f"after-{number}") for number in range(8)))  # past the old position
        reason = await stands(service, "log")
        assert "neuroweaver.requests is another log: topic id" in reason
        assert (await view(toy)).cause == "another log"
        await until(lambda: toy.scalar("SELECT count(*) > 0 FROM standing"))
        assert (await view(toy)).since is not None
        done = await goes_on(toy)
        assert done.fact == "LogAccepted"
        await until(lambda: known(toy, 13))
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
        assert (await view(toy)).state == "at its end"
    assert all(tally.requests == tally.refused == 1 for tally in (await toy.tallies()).values())
    assert await facts(toy) == ["LogAccepted"]


async def test_a_topic_that_was_made_again_while_a_service_was_stopped_is_not_read_on_from_the_old_position(
    toy: Toy,
) -> None:
    async with toy.running():
        await send(toy, *(toy.requested(f"before-{number}") for number in range(5)))
        await until(lambda: known(toy, 5))
    await recreate(toy.settings.cluster, REQUESTS)
    await send(toy, *(toy.requested(f"after-{number}") for number in range(8)))
    service = toy.service()
    async with service.lifespan():
        assert "is another log" in await stands(service, "log")
        assert await known(toy, 5)
        with pytest.raises(ReplayRefused, match=r"was not folded from this log.*is another log"):
            await replay.verify(service.projection)
        await goes_on(toy)
        await until(lambda: known(toy, 13))
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
    async with toy.running():  # what was accepted stays accepted
        assert await known(toy, 13)


async def test_a_topic_that_is_not_kept_for_ever_starts_over_by_itself(toy: Toy) -> None:
    runtime = Runtime(toy.settings, toy.name, toy.domain, topics=(REQUESTS, JOBS, PROGRESS), effects=toy.ledger)
    producer = make_producer(toy.settings.cluster, "outside")
    await producer.start()

    async def progress(count: int) -> None:
        for _ in range(count):
            await producer.send_and_wait(PROGRESS.name, b"{}", partition=0)

    def at(offset: int) -> Any:
        return lambda: toy.scalar(
            f"SELECT next_offset = {offset} FROM position WHERE topic = '{PROGRESS.name}' AND partition = 0"
        )

    await progress(1)
    async with runtime.run(()):
        await until(lambda: runtime.health.ready, what=lambda: runtime.health.missing)
        _, end = (await bounds(toy.settings.cluster, [PROGRESS.name]))[PROGRESS.name, 0]
        await until(at(end))
        await recreate(toy.settings.cluster, PROGRESS)
        await progress(2)
        await until(at(2))
        await remove_below(toy.settings.cluster, (PROGRESS.name, 0), 2)
        await progress(1)
        await until(at(3))
        await until(lambda: runtime.health.ready, what=lambda: runtime.health.missing)
    await producer.stop()


async def test_of_two_tasks_that_let_a_topic_start_over_one_does_it(toy: Toy) -> None:
    place = (PROGRESS.name, 0)
    found = await ask_once(toy.settings.cluster, [PROGRESS.name])

    async def start(seen: int) -> bool:
        async with toy.engine.begin() as connection:
            return await start_over(connection, found, {place: 0}, {place: seen})

    await execute(toy, f"INSERT INTO position (topic, partition, next_offset) VALUES ('{PROGRESS.name}', 0, 5)")
    assert await start(5)
    await execute(toy, f"UPDATE position SET next_offset = 2 WHERE topic = '{PROGRESS.name}'")  # and reads on
    assert not await start(5)
    assert await toy.scalar(f"SELECT next_offset FROM position WHERE topic = '{PROGRESS.name}'") == 2


@pytest.fixture
async def whole_again(own_stack: Any) -> AsyncIterator[None]:
    """Other tests find the topics without a loss, and without a record that stops their services."""
    yield
    for topic in (REQUESTS, JOBS):
        await recreate(own_stack.cluster, topic)


@pytest.mark.usefixtures("whole_again")
@pytest.mark.parametrize("running", [True, False])
async def test_records_that_were_removed_unread_are_said_with_their_range_and_acknowledged_as_a_fact(
    toy: Toy, running: bool
) -> None:
    async with toy.running():
        await send(toy, toy.requested("read"))
        await until(lambda: known(toy, 1))
    position = await toy.scalar(f"SELECT next_offset FROM position WHERE topic = '{PLACE[0]}' AND partition = {PLACE[1]}")
    service = toy.service()
    if running:
        await execute(
            toy,
            "CREATE FUNCTION operational.no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE lock_not_available; END'",
        )
        await execute(toy, "CREATE TRIGGER no BEFORE INSERT ON tally EXECUTE FUNCTION operational.no()")
        async with service.lifespan():
            await until(lambda: "log" in service.health.conditions and service.health.conditions["log"].holds)
            await lose_four_of_five(toy, position)
            await stands(service, "handling")
            assert f"offsets {position} to {position + 3} were removed" in await stands(service, "unread")
            await execute(toy, "DROP TRIGGER no ON tally")
            await acknowledged(toy, service, position)
    else:
        await lose_four_of_five(toy, position)
        async with service.lifespan():
            await acknowledged(toy, service, position)


async def lose_four_of_five(toy: Toy, position: int) -> None:
    await send(toy, *(toy.requested(f"lost-{number}") for number in range(4)), toy.requested("left"))
    await remove_below(toy.settings.cluster, PLACE, position + 4)


async def acknowledged(toy: Toy, service: Service, position: int) -> None:
    said = await stands(service, "unread")
    assert (
        f"{PLACE[0]}:{PLACE[1]}: offsets {position} to {position + 3} were removed from the log before they were read"
        in said
    )
    labels = {"service": toy.name, "topic": PLACE[0], "partition": str(PLACE[1])}
    assert REGISTRY.get_sample_value("neuroweaver_unread_removed", labels) == 4
    assert await known(toy, 1)
    assert "log" not in service.health.missing
    done = await goes_on(toy)
    assert (done.fact, f"offsets {position} to {position + 3} are lost" in done.said) == ("RecordsSkipped", True)
    await until(lambda: known(toy, 2))
    await until(lambda: service.health.ready, what=lambda: service.health.missing)
    assert REGISTRY.get_sample_value("neuroweaver_unread_removed", labels) is None
    with pytest.raises(NotStopped, match="has not stopped, so there is nothing to step over"):
        await goes_on(toy)


@pytest.mark.usefixtures("whole_again")
async def test_a_record_that_stops_its_partition_is_stepped_over_and_every_replay_leaves_it_out(toy: Toy) -> None:
    """On a topic of our own nothing is set aside that a newer version could read."""
    place = (JOBS.name, PLACE[1])
    async with toy.running() as service:
        await send(toy, toy.cancelled("newer"), to=place, ce_type="neuroweaver.JobRejected.v9")
        assert "JobRejected.v9 is newer than this service" in await stands(service, "handling")
        await until(lambda: toy.scalar("SELECT count(*) > 0 FROM standing"))
        assert (await view(toy, place)).cause == "record"
        done = await goes_on(toy, place)
        assert done.fact == "RecordDiscarded"
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
        assert (await view(toy, place)).state == "at its end"
        assert (await replay.verify(service.projection)).differences == 0
    assert await facts(toy) == ["RecordDiscarded"]


async def test_what_was_given_up_in_a_partition_that_is_gone_makes_no_position(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given_up(partition: int) -> RecordDiscarded:
        return RecordDiscarded(
            service=toy.name, topic=REQUESTS.name, partition=partition, offset=7, appended_at=datetime.now(UTC), event_type=None,
            event_id=None, error="broken", reason="broken", discarded_by="ada",
        )  # fmt: skip

    async def read(*_: Any) -> list[RecordDiscarded]:
        return [given_up(0), given_up(99)]

    async with toy.running():
        monkeypatch.setattr(discards, "read_discards", read)
        await discards.learn_discards(toy.engine, toy.settings.cluster, toy.domain.source)
        assert await toy.scalar("SELECT array_agg(partition) = '{0}' FROM dead_letter")
        assert await toy.scalar("SELECT count(*) = 0 FROM position WHERE partition = 99")


async def test_a_partition_that_is_read_on_while_it_is_examined_does_not_stand_and_is_not_set_back(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a service reads on between a look at its position and one at the log's end."""
    asked = log.bounds
    sent: list[str] = []

    async def traffic(*given: Any) -> Any:
        ends = await asked(*given)
        sent.append(f"read-{len(sent)}")
        await send(toy, toy.requested(sent[-1]))
        await until(lambda: known(toy, len(sent)))
        return ends

    async def seen_too_short(*given: Any) -> Any:
        monkeypatch.setattr(log, "bounds", asked)
        return {place: (first, 0) for place, (first, _) in (await asked(*given)).items()}

    async with toy.running():
        monkeypatch.setattr(log, "bounds", traffic)
        assert (await view(toy)).state != "stands"
        with pytest.raises(NotStopped, match="has not stopped"):
            await goes_on(toy)
        monkeypatch.setattr(log, "bounds", seen_too_short)
        with pytest.raises(NotStopped, match="has not stopped"):
            await goes_on(toy)
        assert (await view(toy)).state == "at its end"


async def test_the_broker_is_not_asked_while_the_positions_are_locked(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that does not answer would hold up the live service for as long."""
    asked, free = log.bounds, list[bool]()

    async def noted(*given: Any) -> Any:
        free.append(await toy.scalar("SELECT count(*) > 0 FROM (SELECT FROM position FOR UPDATE SKIP LOCKED) AS free"))
        return await asked(*given)

    async with toy.running():
        await send(toy, toy.requested("a"))
        await until(lambda: known(toy, 1))
    await execute(toy, f"UPDATE position SET next_offset = 1000000 WHERE topic = '{PLACE[0]}' AND partition = {PLACE[1]}")
    monkeypatch.setattr(log, "bounds", noted)
    assert "continue at offsets 3: " in (await goes_on(toy)).said
    assert free
    assert all(free)


async def test_a_database_that_is_older_than_the_log_is_not_stepped_over_but_told_its_remedy(toy: Toy) -> None:
    async with toy.running():
        await send(toy, toy.requested("a"))
        await until(lambda: toy.log())
    await execute(toy, "UPDATE tally SET sequence = -5")
    await execute(toy, f"UPDATE position SET next_offset = 0 WHERE topic = '{JOBS.name}'")
    service = toy.service()
    async with service.lifespan():
        await stands(service, "handling")
        await until(lambda: toy.scalar("SELECT count(*) > 0 FROM standing WHERE cause = 'gap'"))
        (gap,) = [one for one in await listed(toy.engine, toy.runtime().reading) if one.cause == "gap"]
        with pytest.raises(CannotStepOver, match="drop its database and start it; it is restored from the log"):
            await step_over(toy.engine, toy.runtime().reading, (gap.topic, gap.partition), "no", "ada")
