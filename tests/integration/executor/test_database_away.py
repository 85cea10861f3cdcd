"""The database crashes while a step runs: shorter than the lease nobody notices, longer the run is fenced and made again."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.chassis.executor.attempts import attempt_ref
from services.devstack.stack import DevStack
from tests.executor import Executor, Script
from tests.steps import request
from tests.toy import until

REF = attempt_ref("a", "evaluate", 1)


@pytest.fixture
async def executor(own_stack: DevStack, tmp_path: Path) -> AsyncIterator[Executor]:
    executor = Executor(own_stack.database_url, tmp_path)
    await executor.create()
    await executor.deliver(request("a"))
    yield executor
    await executor.runtime.engine.dispose()


async def completed(executor: Executor) -> bool:
    return await executor.status(REF) == "completed"


async def test_a_step_that_ends_while_the_database_is_down_is_concluded_when_it_is_back(
    executor: Executor, own_stack: DevStack
) -> None:
    script, postgres = Script(), own_stack.postgres
    assert postgres is not None
    async with executor.working(script, lease_seconds=300):
        await until(lambda: len(script.runs) == 1)
        await asyncio.to_thread(postgres.kill)
        script.gate.set()
        await asyncio.sleep(0.5)
        await asyncio.to_thread(postgres.start)
        await until(lambda: completed(executor))
    assert not script.runs[0][1].stop.is_set()
    assert await executor.said(REF) == ["StepStarted", "StepCompleted"]


async def test_a_database_that_is_down_for_longer_than_the_lease_stops_the_run_and_the_work_is_taken_again(
    executor: Executor, own_stack: DevStack
) -> None:
    script, postgres = Script(), own_stack.postgres
    assert postgres is not None
    async with executor.working(script, lease_seconds=2):
        await until(lambda: len(script.runs) == 1)
        await asyncio.to_thread(postgres.kill)
        await asyncio.wait_for(script.runs[0][1].lost.wait(), 120)
        await asyncio.to_thread(postgres.start)
        await until(lambda: len(script.runs) >= 2)
        script.gate.set()
        await until(lambda: completed(executor))
    *starts, end = await executor.said(REF)
    assert (set(starts), end) == ({"StepStarted"}, "StepCompleted")
    assert len({work.lease for work, _ in script.runs}) == len(starts) >= 2
