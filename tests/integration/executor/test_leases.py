"""Work in the database: who gets what, when, and what a lease is worth. Against a real PostgreSQL."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, NullPool

from schemas.jobs import StepFailed, StepFault, StepRequested, StepStarted
from services.chassis.executor.attempts import attempt_ref, decision
from services.chassis.executor.statements import CHANNEL
from services.chassis.executor.tables import attempt_table, work_table
from services.chassis.executor.work import claim, release, renew, requeue_open, used_seconds
from services.chassis.kernel.tables import operational_tables
from services.chassis.postgres.urls import parse
from tests.executor import Executor
from tests.steps import an_event, cancel, request


def key(name: str) -> str:
    return attempt_ref(name, "evaluate", 1).key


async def keys(executor: Executor) -> list[str]:
    return [row.key.partition("/")[0] for row in await executor.work()]


async def finish(executor: Executor, about: StepRequested) -> None:
    ref = attempt_ref(about.job_id, about.step, about.attempt)
    async with executor.runtime.transact([ref]) as command:
        command.unit.apply(decision(about, StepFailed, fault=StepFault(cause="user", message="no")))


async def test_the_migrations_make_the_tables_that_are_described(executor: Executor) -> None:
    metadata = MetaData()
    operational_tables(metadata)
    attempt_table(metadata)
    work_table(metadata)

    def compare(connection: Connection) -> list[Any]:
        options = {"include_schemas": True, "compare_server_default": True, "version_table_schema": "operational"}
        found = compare_metadata(MigrationContext.configure(connection, opts=options), metadata)
        return [item for change in found for item in (change if isinstance(change, list) else [change])]

    engine = parse(executor.settings.database_url_for(executor.name)).engine(poolclass=NullPool)
    async with engine.connect() as connection:
        changes = await connection.run_sync(compare)
    assert [change for change in changes if "comment" not in change[0] and "alembic_version" not in str(change[1])] == []


async def test_a_request_becomes_work_in_its_own_transaction_and_wakes_the_workers(executor: Executor) -> None:
    stop = asyncio.Event()
    listening = asyncio.create_task(executor.runtime.notifications.run(stop))
    with executor.runtime.notifications.subscribe(CHANNEL) as signal:
        assert await signal.wait(5) == [""]  # listening
        await executor.deliver(request("a", priority=2))
        assert await signal.wait(5) == [key("a")]
    stop.set()
    await listening
    (row,) = await executor.work()
    assert (row.key, row.priority, row.cancel, row.lease, row.leases) == (key("a"), 2, False, None, 0)


async def test_kinds_of_other_services_are_no_work(executor: Executor) -> None:
    await executor.deliver(request("a", step="label", kind="label"))
    assert await executor.work() == []


async def test_a_request_and_its_cancel_in_one_batch_leave_no_work(executor: Executor) -> None:
    await executor.deliver(request("a"), cancel(request("a")), request("b"))
    assert await keys(executor) == ["b"]
    assert await executor.said(attempt_ref("a", "evaluate", 1)) == ["StepCancelled"]


async def test_an_outcome_removes_the_work(executor: Executor) -> None:
    await executor.deliver(request("a"), request("b"))
    await finish(executor, request("a"))
    assert await keys(executor) == ["b"]


async def test_priority_goes_before_age_and_age_before_the_name(executor: Executor) -> None:
    await executor.deliver(request("z"), request("b"), request("a", priority=5), request("c", priority=-1))
    claimed = [await claim(executor.runtime.engine, f"{number}", 60) for number in range(5)]
    assert [lease.key.partition("/")[0] if lease else None for lease in claimed] == ["a", "z", "b", "c", None]


@pytest.mark.parametrize("hours", [-2, 0, 2], ids=["behind", "equal", "ahead"])
async def test_a_retry_waits_as_long_as_was_asked_whatever_the_orchestrators_clock_says(
    executor: Executor, hours: int
) -> None:
    said = datetime.now(UTC) + timedelta(hours=hours)
    later = request("later", not_before=said + timedelta(seconds=3600), priority=9)
    due = request("due", not_before=said)
    await executor.deliver_events(*(an_event(data)._replace(time=said) for data in (later, due)))

    async def wait() -> float:
        ((seconds,),) = await executor.rows(
            "SELECT extract(epoch FROM not_before - clock_timestamp()) FROM work WHERE priority = 9"
        )
        return float(seconds)

    assert 3000 < await wait() <= 3600
    first = await claim(executor.runtime.engine, "1", 60)
    assert first is not None
    assert first.key == key("due")
    assert await claim(executor.runtime.engine, "2", 60) is None
    await executor.execute("DELETE FROM work")
    await requeue_open(executor.runtime.engine)
    assert 3000 < await wait() <= 3600


async def test_claims_of_many_workers_never_overlap(executor: Executor) -> None:
    await executor.deliver(*(request(f"job-{number}") for number in range(60)))

    async def worker(name: int) -> list[str]:
        got: list[str] = []
        while lease := await claim(executor.runtime.engine, f"{name}-{len(got)}", 60):
            got.append(lease.key)
        return got

    claimed = await asyncio.gather(*(worker(name) for name in range(8)))
    assert sorted(chain(*claimed)) == sorted(key(f"job-{number}") for number in range(60))
    assert sum(bool(got) for got in claimed) > 1, "one worker took it all: the claims did not run side by side"


async def test_a_lease_that_ran_out_is_taken_over_and_the_old_token_is_worth_nothing(executor: Executor) -> None:
    engine = executor.runtime.engine
    await executor.deliver(request("a"))
    old = await claim(engine, "old", 600)
    assert old is not None
    assert await claim(engine, "new", 60) is None
    await executor.lapse()
    new = await claim(engine, "new", 60)
    assert new is not None
    assert await renew(engine, old, 60) is None
    await release(engine, old)
    async with engine.begin() as connection:
        assert await used_seconds(connection, old) is None
        assert await used_seconds(connection, new) is not None
    (row,) = await executor.work()
    assert (row.lease, row.leases) == ("new", 2)


async def test_a_renewed_lease_is_kept(executor: Executor) -> None:
    engine = executor.runtime.engine
    await executor.deliver(request("a"))
    lease = await claim(engine, "1", 0.3)
    assert lease is not None
    assert await renew(engine, lease, 600) is False
    await asyncio.sleep(0.5)
    assert await claim(engine, "2", 60) is None


async def test_a_lease_that_ran_out_but_was_not_taken_over_can_still_be_renewed(executor: Executor) -> None:
    await executor.deliver(request("a"))
    lease = await claim(executor.runtime.engine, "1", 0.05)
    assert lease is not None
    await asyncio.sleep(0.1)
    assert await renew(executor.runtime.engine, lease, 60) is False


async def test_a_released_lease_can_be_claimed_at_once(executor: Executor) -> None:
    engine = executor.runtime.engine
    await executor.deliver(request("a"))
    lease = await claim(engine, "1", 60)
    assert lease is not None
    await release(engine, lease)
    assert await claim(engine, "2", 60) is not None


async def test_a_cancel_of_begun_work_is_seen_with_the_next_renewal(executor: Executor) -> None:
    engine = executor.runtime.engine
    await executor.deliver(request("a"))
    lease = await claim(engine, "1", 60)
    assert lease is not None
    async with executor.runtime.transact([attempt_ref("a", "evaluate", 1)]) as command:
        command.unit.apply(decision(request("a"), StepStarted, worker="w"))
    assert await renew(engine, lease, 60) is False
    await executor.deliver(cancel(request("a")))
    assert await renew(engine, lease, 60) is True


async def test_after_a_lost_work_table_every_open_attempt_is_taken_up_again_and_no_other(executor: Executor) -> None:
    engine = executor.runtime.engine
    later = datetime.now(UTC) + timedelta(hours=1)
    await executor.deliver(
        request("queued", priority=4), request("later", not_before=later), request("ended"), request("begun"),
        request("cancelled"), cancel(request("cancelled")),
    )  # fmt: skip
    await finish(executor, request("ended"))
    async with executor.runtime.transact([attempt_ref("begun", "evaluate", 1)]) as command:
        command.unit.apply(decision(request("begun"), StepStarted, worker="w"))
    await executor.deliver(cancel(request("begun")))

    async def now() -> list[object]:
        return [
            (row.key, row.priority, row.requested_at, row.not_before is None, row.cancel) for row in await executor.work()
        ]

    before = await now()
    await executor.execute("DELETE FROM work")
    await requeue_open(engine)
    await requeue_open(engine)
    assert await now() == before
    assert await keys(executor) == ["begun", "later", "queued"]


async def test_taking_up_leaves_work_that_is_held_alone(executor: Executor) -> None:
    await executor.deliver(request("a"))
    await claim(executor.runtime.engine, "1", 60)
    await requeue_open(executor.runtime.engine)
    (row,) = await executor.work()
    assert row.lease == "1"


async def test_cancels_and_renewals_of_the_same_work_do_not_lock_each_other_out(executor: Executor) -> None:
    """The batch locks the attempt, then the work row; a renewal the work row alone."""
    engine = executor.runtime.engine
    await executor.deliver(*(request(f"{number}") for number in range(20)))
    leases = [lease for _ in range(20) if (lease := await claim(engine, "t", 60))]
    done = asyncio.Event()

    async def renew_all() -> None:
        while not done.is_set():
            for lease in leases:
                await renew(engine, lease, 60)

    async with executor.runtime.transact([attempt_ref(f"{number}", "evaluate", 1) for number in range(20)]) as command:
        for number in range(20):
            command.unit.apply(decision(request(f"{number}"), StepStarted, worker="w"))
    renewing = [asyncio.create_task(renew_all()) for _ in range(3)]
    for _ in range(5):
        await executor.deliver(*(cancel(request(f"{number}")) for number in reversed(range(20))))
    done.set()
    await asyncio.gather(*renewing)
    assert all(row.cancel for row in await executor.work())
