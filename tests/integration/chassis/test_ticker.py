"""What falls due and cannot be decided is said, and holds up nothing else."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from schemas.jobs import JobRejected
from services.chassis.kernel import ticker
from services.chassis.kernel.aggregate import Decision, Ref, States
from tests.toy import Toy, until


async def test_a_due_decision_that_keeps_failing_is_a_condition_with_its_job_and_reason_until_it_succeeds(
    kafka: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticker, "_RETRY_SECONDS", 0.5)
    toy = Toy(kafka, database_url, tmp_path, delay=timedelta(seconds=1))
    await toy.create()
    decide, stuck = toy.domain.decide, {toy.prefix + "stuck"}

    def failing(ref: Ref, states: States, now: datetime) -> Decision | None:
        decision = decide(ref, states, now)
        if decision and ref.key in stuck and isinstance(decision.data, JobRejected) and decision.data.reasons:
            raise ValueError("this cannot be counted")
        return decision

    monkeypatch.setattr(toy.domain, "decide", failing)
    async with toy.running() as service:
        await toy.send(toy.requested("stuck"), toy.requested("well"))
        await until(lambda: "deciding" in service.health.missing)
        said = f"tally {toy.prefix}stuck is due, but deciding failed: ValueError: this cannot be counted"
        assert service.health.missing["deciding"] == said  # and "handling", where its own event comes back when it is due
        await until(lambda: toy.scalar("SELECT count(*) = 1 FROM tally WHERE state->>'reminded' = 'true'"))
        stuck.clear()
        await until(lambda: service.health.ready)
        assert all(tally.reminded for tally in (await toy.tallies()).values())
    await toy.engine.dispose()
