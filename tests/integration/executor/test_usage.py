"""Each attempt tells what it used of its machine with its outcome, in all its runs. Real PostgreSQL."""

import asyncio
import json
from typing import Any

import pytest

from schemas.jobs import StepFault
from services.chassis.executor import transactions
from services.chassis.executor.attempts import ref_of
from services.chassis.executor.runner import Failed, Outcome, Work, WorkContext
from services.chassis.executor.slots import Allocation, elsewhere
from services.chassis.executor.work import claim
from services.chassis.prices import PriceSettings
from tests.executor import Executor, Script
from tests.steps import cancel, request
from tests.toy import until

ASKED = request()
REF = ref_of(ASKED)
PRICES = PriceSettings(core_hour=3600.0, kwh=1.0, currency="CHF")


async def told(executor: Executor) -> list[dict[str, Any]]:
    """Return the data of the attempt's own events."""
    return [json.loads(row.payload) for row in await executor.outbox(REF)]


async def test_a_completed_attempt_tells_its_seconds_its_cores_and_its_cost(executor: Executor) -> None:
    async def half_a_second(work: Work, context: WorkContext) -> Outcome:
        await asyncio.sleep(0.5)
        return Script().outcome  # type: ignore[return-value]

    await executor.deliver(ASKED)
    async with executor.working(Script(half_a_second), slot_cores=3, step_cores=2, price=PRICES):
        await until(lambda: _ended(executor, "completed"))
    started, completed = await told(executor)
    assert (started["cores"], started["devices"]) == (2, 0)
    usage = completed["usage"]
    assert (usage["cores"], usage["devices"], usage["currency"], usage["device_joules"]) == (2, 0, "CHF", None)
    assert usage["seconds"] >= 0.5
    assert usage["cost"] >= 2 * usage["seconds"] - 1e-6


async def test_an_attempt_on_another_machine_tells_and_costs_what_it_reserves_there(executor: Executor) -> None:
    prices = PriceSettings(core_hour=3600.0, device_hour=36_000.0, kwh=1.0, currency="CHF")
    await executor.deliver(ASKED)
    done = Script()
    done.gate.set()
    async with executor.working(done, machine=elsewhere(cores=2, devices=1), price=prices):
        await until(lambda: _ended(executor, "completed"))
    started, completed = await told(executor)
    assert (started["cores"], started["devices"]) == (2, 1)
    usage = completed["usage"]
    assert (usage["cores"], usage["devices"]) == (2, 1)
    assert (usage["processor_joules"], usage["device_joules"]) == (None, None), "what this machine uses is not its energy"
    assert usage["cost"] == pytest.approx(usage["seconds"] * (2 * 1 + 1 * 10))


async def test_an_attempt_that_failed_tells_it_too_and_without_prices_no_cost(executor: Executor) -> None:
    await executor.deliver(ASKED)
    failed = Script(Failed(StepFault(cause="user", message="no")))
    failed.gate.set()
    async with executor.working(failed):
        await until(lambda: _ended(executor, "failed"))
    usage = (await told(executor))[-1]["usage"]
    assert usage["seconds"] >= 0
    assert (usage["cost"], usage["currency"]) == (None, None)


async def test_a_run_that_another_one_continues_counts_and_the_time_between_them_does_not(executor: Executor) -> None:
    script = Script()
    await executor.deliver(ASKED)
    async with executor.working(script):
        await until(lambda: len(script.runs) == 1)
        await executor.execute("UPDATE work SET counted_at = counted_at - interval '100 s'")
    (row,) = await executor.work()
    assert 100 <= row.used_seconds < 200, "it was released"
    await executor.execute("UPDATE work SET requested_at = requested_at - interval '1 day'")
    script.gate.set()
    async with executor.working(script):
        await until(lambda: _ended(executor, "completed"))
    usage = (await told(executor))[-1]["usage"]
    assert 100 <= usage["seconds"] < 200
    assert usage["processor_joules"] is None, "only the last run was measured"


async def test_a_cancelled_attempt_tells_what_it_used(executor: Executor) -> None:
    script = Script()
    await executor.deliver(ASKED)
    async with executor.working(script):
        await until(lambda: len(script.runs) == 1)
        await executor.deliver(cancel(ASKED))
        await until(lambda: _ended(executor, "cancelled"))
    assert (await told(executor))[-1]["usage"]["seconds"] >= 0


@pytest.mark.parametrize("cancelled", [False, True], ids=["begun too often", "cancelled"])
async def test_an_attempt_that_no_worker_begins_again_tells_what_its_lost_runs_used(
    executor: Executor, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    monkeypatch.setattr(transactions, "STARTS_AT_MOST", 1)
    runtime = executor.process(price=PRICES)
    await executor.deliver(ASKED)
    for number in range(2):
        lease = await claim(runtime.engine, f"worker-{number}", 60)
        assert lease is not None
        await transactions.begin(runtime, f"worker-{number}", lease, 0, Allocation((), 2))
        if number == 0:
            await executor.execute("UPDATE work SET used_seconds = 100, counted_at = NULL")
            await executor.lapse()
            if cancelled:
                await executor.deliver(cancel(ASKED))
    (*_, kind) = await executor.said(REF)
    assert kind == ("StepCancelled" if cancelled else "StepFailed")
    usage = (await told(executor))[-1]["usage"]
    assert usage["seconds"] >= 100
    assert (usage["cores"], usage["processor_joules"]) == (2, None)
    assert usage["cost"] >= 200


async def _ended(executor: Executor, status: str) -> bool:
    return await executor.status(REF) == status
