"""What falls due and cannot be decided is said, and holds up nothing else."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from schemas.jobs import JobRejected
from schemas.topics import JOBS
from services.chassis.kernel import ticker
from services.chassis.kernel.aggregate import Decision, Ref, States
from tests.toy import Toy, until


async def test_a_due_decision_that_keeps_failing_is_a_condition_with_its_job_and_reason_until_it_succeeds(
    kafka: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticker, "_RETRY_SECONDS", 0.5)
    toy = Toy(kafka, database_url, tmp_path, delay=timedelta(hours=1))
    await toy.create()
    decide, stuck, later = toy.domain.decide, {toy.prefix + "stuck"}, timedelta()

    def failing(ref: Ref, states: States, now: datetime) -> Decision | None:
        decision = decide(ref, states, now + later)
        if decision and ref.key in stuck and isinstance(decision.data, JobRejected) and decision.data.reasons:
            raise ValueError("this cannot be counted")
        return decision

    monkeypatch.setattr(toy.domain, "decide", failing)
    async with toy.running() as service:
        await toy.send(toy.requested("stuck"), toy.requested("well"))
        await until(lambda: own_events_are_back(toy, 2))  # so that only the ticker decides what falls due
        later = timedelta(hours=2)
        async with toy.engine.begin() as connection:
            await connection.execute(text("UPDATE tally SET due_at = now()"))
        await until(lambda: "deciding" in service.health.missing)
        said = f"tally {toy.prefix}stuck is due, but deciding failed: ValueError: this cannot be counted"
        assert service.health.missing == {"deciding": said}
        await until(lambda: toy.scalar("SELECT count(*) = 1 FROM tally WHERE state->>'reminded' = 'true'"))
        stuck.clear()
        await until(lambda: service.health.ready)
        assert all(tally.reminded for tally in (await toy.tallies()).values())
    await toy.engine.dispose()


async def own_events_are_back(toy: Toy, count: int) -> bool:
    """Whether the service has published `count` events and read all of them."""
    records = await toy.log(JOBS.name)
    async with toy.engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT partition, next_offset FROM position WHERE topic = :topic"), {"topic": JOBS.name}
        )
        positions = {row.partition: row.next_offset for row in rows}
    return len(records) == count and all(positions.get(record.partition, 0) > record.offset for record in records)
