"""A service whose database is lost takes up its work from the log, and decides nothing that it decided before."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from schemas.envelope import Event, encode
from schemas.topics import JOBS
from services.chassis.kafka.publisher import make_producer
from services.chassis.kernel import store
from services.chassis.kernel.deadletters.listing import LetterFilter, find
from services.chassis.kernel.operations.handling import retry
from services.chassis.kernel.records import event_in
from services.chassis.kernel.statements import INSERT_POSITION
from services.chassis.replay import restore as restoring
from services.chassis.replay.checks import ReplayRefused
from services.chassis.replay.fold import Fold
from services.chassis.replay.rebuild import verify
from services.chassis.replay.restore import Acceptance, NotRestored, restore
from services.chassis.replay.runs import Busy, last_runs
from tests.toy import Toy, until


@pytest.fixture
async def toy(kafka: str, database_url: str, tmp_path: Path) -> AsyncIterator[Toy]:
    toy = Toy(kafka, database_url, tmp_path, delay=timedelta(seconds=4))
    await toy.create()
    yield toy
    await toy.engine.dispose()


async def refused(toy: Toy, count: int, *, reminded: bool = False) -> bool:
    tallies = (await toy.tallies()).values()
    return len(tallies) == count and all(tally.refused == 1 and (tally.reminded or not reminded) for tally in tallies)


async def test_what_was_decided_is_not_decided_again_and_what_is_due_still_happens(toy: Toy) -> None:
    events = [toy.requested(f"{number:02}") for number in range(30)]
    async with toy.running():
        await toy.send(*events)
        await until(lambda: refused(toy, 30))
        await until(lambda: toy.scalar("SELECT count(*) = 0 FROM outbox"))
    said = len(await toy.log())
    await toy.lose_database()
    async with toy.running():
        await toy.send(*events[:5], toy.requested("new"))  # and a producer sends again what it sent before
        await until(lambda: refused(toy, 31, reminded=True))
        async with toy.engine.connect() as connection:
            (run,) = await last_runs(connection)
        assert (run.kind, run.state) == ("restore", "done")
        assert (await verify(toy.runtime().projection)).differences == 0
        await until(lambda: toy.scalar("SELECT count(*) = 0 FROM outbox"))
    decisions = [(record.key, dict(record.headers)["ce_sequence"]) for record in await toy.log(JOBS.name)]
    assert len(decisions) == len(set(decisions)) == 62
    assert said >= 30
    assert {tally.requests for tally in (await toy.tallies()).values()} == {1}


async def test_what_cannot_be_folded_is_set_aside_with_all_behind_it_and_nothing_is_decided_again(toy: Toy) -> None:
    bad = [toy.requested("bad"), toy.requested("bad"), toy.cancelled("bad")]
    toy.domain.poison = lambda event: event.id == bad[1].id
    async with toy.running():
        await toy.send(*bad, *(toy.requested(f"{number:02}") for number in range(10)))
        await until(lambda: refused(toy, 11, reminded=True))
        await until(lambda: toy.scalar("SELECT count(*) = 2 FROM dead_letter WHERE state <> 'unreadable'"))
    await toy.lose_database()
    async with toy.running():
        await toy.send(toy.cancelled("bad"), toy.requested("new"))
        await until(lambda: refused(toy, 12, reminded=True))
        await until(lambda: toy.scalar("SELECT count(*) = 3 FROM dead_letter WHERE state <> 'unreadable'"))
        async with toy.engine.connect() as connection:
            (run,) = await last_runs(connection)
            letters = await find(connection, LetterFilter())
        assert (run.kind, run.state) == ("restore", "done")
        (failed,) = [letter for letter in letters if letter.state == "failed"]
        assert failed.event_id == bad[1].id
        assert failed.error == "ValueError: this job is poison"
        assert [parked.event_id for parked in failed.parked][:1] == [bad[2].id]
        assert (await verify(toy.runtime().projection)).differences == 0

        toy.domain.poison = lambda event: False
        done = await retry(toy.engine, toy.runtime().handling, failed.record_id)
        assert (len(done.applied), done.failed, done.parked) == (3, None, 0)
        assert (await toy.tallies())["bad"].order[:3] == tuple(event.id for event in bad)
        await until(lambda: toy.scalar("SELECT count(*) = 0 FROM outbox"))
        assert (await verify(toy.runtime().projection)).differences == 0
    decisions = [(record.key, dict(record.headers)["ce_sequence"]) for record in await toy.log(JOBS.name)]
    assert len(decisions) == len(set(decisions)) == 24


async def decided_and_lost(toy: Toy) -> str:
    """A job is refused, its reminder too; then the database is lost. The id of the first own event."""
    async with toy.running():
        await toy.send(toy.requested("a"), toy.requested("b"))
        await until(lambda: refused(toy, 2))
        await until(lambda: toy.scalar("SELECT count(*) = 0 FROM outbox"))
    await toy.lose_database()
    own = [record for record in await toy.log() if record.key.decode() == toy.prefix + "a"]
    return str(dict(own[0].headers)["ce_id"].decode())


async def test_a_failed_restore_stops_the_service_with_a_command_and_it_goes_on_when_that_was_given(toy: Toy) -> None:
    own = await decided_and_lost(toy)
    said = len(await toy.log())
    toy.domain.poison = lambda event: event.id == own
    service = toy.service()
    async with service.lifespan():
        await until(lambda: "projections restore" in service.health.missing.get("restored", ""))
        reason = service.health.missing["restored"]
        assert f"`neuroweaver projections restore {toy.name} --accept-incomplete`" in reason
        assert "this job is poison" in reason
        await toy.send(toy.requested("new"))
        await asyncio.sleep(1)
        assert await toy.tallies() == {}
        assert await toy.scalar("SELECT count(*) = 0 FROM outbox")
        assert await toy.scalar("SELECT coalesce(max(next_offset), 0) = 0 FROM position")
        assert "consuming" in service.health.missing

        assert await restore(toy.runtime().projection, toy.engine, Acceptance("an operator"))
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
        await until(lambda: toy.scalar("SELECT count(*) = 3 FROM tally"))
    async with toy.engine.connect() as connection:
        done, failed = await last_runs(connection, 2)
    assert (failed.state, done.state) == ("failed", "done")
    assert done.result is not None
    assert (done.result["accepted_by"], done.result["passed_over"]) == ("an operator", 1)
    numbers = [(record.key, dict(record.headers)["ce_sequence"]) for record in await toy.log()]
    assert len(numbers) == len(set(numbers)) >= said


async def test_a_log_that_has_lost_its_first_records_is_not_restored_from_unless_that_is_accepted(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await decided_and_lost(toy)

    async def lost(_projection: object) -> str:
        return "neuroweaver.jobs:3 begins at offset 17"

    monkeypatch.setattr(restoring, "_lost", lost)
    with pytest.raises(NotRestored, match=r"jobs:3 begins at offset 17.*--accept-incomplete"):
        await restore(toy.runtime().projection, toy.engine)
    assert await toy.tallies() == {}
    assert await restore(toy.runtime().projection, toy.engine, Acceptance("an operator"))
    assert len(await toy.tallies()) == 2


async def test_own_events_whose_predecessors_are_nowhere_stop_a_restore_and_their_numbers_count_when_it_is_accepted(
    toy: Toy,
) -> None:
    await decided_and_lost(toy)
    last = next(record for record in reversed(await toy.log()) if record.key.decode() == toy.prefix + "a")
    event = event_in(last, toy.domain.handles)
    assert isinstance(event, Event)
    assert event.sequence is not None
    value, headers = encode(event._replace(id="the-last", sequence=event.sequence + 3))
    producer = make_producer(toy.settings.cluster, "own")
    await producer.start()
    elsewhere = (last.partition + 1) % JOBS.partitions
    await producer.send_and_wait(JOBS.name, value, last.key, elsewhere, headers=headers)
    await producer.stop()
    nowhere = f"numbers {event.sequence + 1} to {event.sequence + 2}"
    with pytest.raises(
        NotRestored, match=rf"tally {toy.prefix}a are not on the log: it has JobRejected the-last .*{nowhere}"
    ):
        await restore(toy.runtime().projection, toy.engine)
    assert await restore(toy.runtime().projection, toy.engine, Acceptance("an operator"))
    assert await toy.scalar(f"SELECT sequence FROM tally WHERE key = '{toy.prefix}a'") == event.sequence + 3


async def test_a_restore_beside_a_living_process_of_the_service_is_refused(toy: Toy) -> None:
    async with toy.running():
        await toy.send(toy.requested("a"))
        await until(lambda: refused(toy, 1))
        await until(lambda: toy.scalar("SELECT count(*) = 0 FROM outbox"))
        await toy.lose_database()
        with pytest.raises(
            ReplayRefused, match=f"until group neuroweaver-{toy.name} has no members: client 'neuroweaver-{toy.name}"
        ):
            await restore(toy.runtime().projection, toy.engine)
        assert await toy.tallies() == {}


async def test_a_restore_ends_at_once_when_the_service_is_told_to_and_nothing_of_it_stays(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await decided_and_lost(toy)
    reached = asyncio.Event()

    async def hangs(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as hanging:
        hanging.setattr(Fold, "up_to", hangs)
        async with asyncio.timeout(60), toy.service().lifespan():
            await reached.wait()
    assert await toy.tallies() == {}
    async with toy.engine.connect() as connection:
        assert [run.state for run in await last_runs(connection)] == ["cancelled"]
    async with toy.running():
        assert len(await toy.tallies()) == 2


async def test_a_restore_that_was_frozen_while_another_finished_changes_nothing(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await decided_and_lost(toy)
    fill = restoring._fill

    async def overtaken(*given: Any) -> Any:
        ends = await fill(*given)
        async with toy.engine.begin() as connection:
            values = [{"topic": topic, "partition": number} for topic, number in sorted(ends)]
            await connection.execute(INSERT_POSITION, values)
            await store.move_positions(connection, {partition: end + 1 for partition, end in ends.items()})
        return ends

    monkeypatch.setattr(restoring, "_fill", overtaken)
    with pytest.raises(Busy, match="meanwhile"):
        await restore(toy.runtime().projection, toy.engine)
    assert await toy.tallies() == {}


async def test_a_new_service_on_a_log_on_which_it_has_not_spoken_simply_begins(toy: Toy) -> None:
    await toy.send(toy.requested("a"))
    async with toy.running():
        await until(lambda: refused(toy, 1))
    assert await toy.scalar("SELECT count(*) FROM replay") == 0
    assert await toy.scalar("SELECT count(*) >= 2 FROM operational.ledger")
