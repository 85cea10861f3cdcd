"""A service whose database is lost takes up its work from the log, and decides nothing that it decided before."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from schemas.topics import JOBS
from services.chassis.deadletters.handling import retry
from services.chassis.deadletters.listing import LetterFilter, find
from services.chassis.replay.rebuild import verify
from services.chassis.replay.runs import last_runs
from tests.toy import Toy, until

_TABLES = ("tally", "inbox", "outbox", "dead_letter", "position", "replay", "sweep", "operational.ledger")


@pytest.fixture
async def toy(kafka: str, database_url: str, tmp_path: Path) -> AsyncIterator[Toy]:
    toy = Toy(kafka, database_url, tmp_path, delay=timedelta(seconds=4))
    await toy.create()
    yield toy
    await toy.engine.dispose()


async def lose_the_database(toy: Toy) -> None:
    async with toy.engine.begin() as connection:
        for table in _TABLES:
            await connection.execute(text(f"DELETE FROM {table}"))


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
    await lose_the_database(toy)
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
    await lose_the_database(toy)
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
        done = await retry(toy.engine, toy.runtime().handling, failed.place)
        assert (len(done.applied), done.failed, done.parked) == (3, None, 0)
        assert (await toy.tallies())["bad"].order[:3] == tuple(event.id for event in bad)
        await until(lambda: toy.scalar("SELECT count(*) = 0 FROM outbox"))
        assert (await verify(toy.runtime().projection)).differences == 0
    decisions = [(record.key, dict(record.headers)["ce_sequence"]) for record in await toy.log(JOBS.name)]
    assert len(decisions) == len(set(decisions)) == 24


async def test_a_new_service_on_a_log_on_which_it_has_not_spoken_simply_begins(toy: Toy) -> None:
    await toy.send(toy.requested("a"))
    async with toy.running():
        await until(lambda: refused(toy, 1))
    assert await toy.scalar("SELECT count(*) FROM replay") == 0
    assert await toy.scalar("SELECT count(*) >= 2 FROM operational.ledger")
