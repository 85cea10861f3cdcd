"""The executors of a machine keep one account of what they use together: real processes, kill -9 included."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from services.chassis.executor import account
from services.chassis.executor.account import Account, AccountFault
from services.chassis.executor.slots import Counted, Free, Machine, Slots, Whole
from tests.toy import until

TRAINING = Counted(2, 8000, 0, ())
JUDGE = Counted(2, 2000, 0, ())
HOLDS = """
import asyncio, subprocess, sys, time
from pathlib import Path
from services.chassis.executor.account import Account
from services.chassis.executor.slots import Counted
async def main():
    mine = Account(Path(sys.argv[1]), "trainer")
    async with mine.alone():
        held = mine.take(Counted(2, 8000, 0, ()))
    child = subprocess.Popen(["sleep", "600"], pass_fds=(held,), stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    time.sleep(600)
asyncio.run(main())
"""


async def others(of: Account) -> list[Counted]:
    async with of.alone():
        return list(of.others())


async def test_what_a_killed_process_counted_is_free_when_its_child_has_ended_too(tmp_path: Path) -> None:
    feedback = Account(tmp_path, "feedback")
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDS, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    child = int(await holder.stdout.readline())
    try:
        assert await others(feedback) == [TRAINING]
        holder.kill()
        await holder.wait()
        assert await others(feedback) == [TRAINING], "its child still uses the memory"
    finally:
        os.kill(child, signal.SIGKILL)

    async def free() -> bool:
        return not await others(feedback)

    await until(free)
    assert list((tmp_path / "running").iterdir()) == []


async def test_a_service_counts_what_others_run_and_not_its_own(tmp_path: Path) -> None:
    trainer, feedback = Account(tmp_path, "trainer"), Account(tmp_path, "feedback")
    async with trainer.alone():
        held = trainer.take(TRAINING)
    assert (await others(trainer), await others(feedback)) == ([], [TRAINING])
    os.close(held)
    assert await others(feedback) == []


async def test_what_waits_is_passed_over_once_and_then_its_slots_are_kept(tmp_path: Path) -> None:
    trainer, feedback = Account(tmp_path, "trainer"), Account(tmp_path, "feedback")
    async with feedback.alone():
        feedback.wish(JUDGE)
    assert await others(trainer) == []
    async with trainer.alone():
        held = trainer.take(TRAINING)
        trainer.wish(TRAINING)
    os.close(held)
    assert await others(trainer) == [JUDGE], "it has waited longer"
    assert await others(feedback) == []
    async with feedback.alone():
        os.close(feedback.take(JUDGE))
    assert await others(trainer) == []


async def test_the_wish_of_a_service_that_claims_no_more_does_not_count(tmp_path: Path) -> None:
    now = 1000.0
    trainer, feedback = (Account(tmp_path, name, lambda: now) for name in ("trainer", "feedback"))
    async with feedback.alone():
        feedback.wish(JUDGE)
    async with trainer.alone():
        os.close(trainer.take(TRAINING))
    assert await others(trainer) == [JUDGE]
    now += 60
    assert await others(trainer) == []


async def test_a_line_that_cannot_be_read_stops_every_claim_and_is_named(tmp_path: Path) -> None:
    trainer, feedback = Account(tmp_path, "trainer"), Account(tmp_path, "feedback")
    async with trainer.alone():
        held = trainer.take(TRAINING)
    os.pwrite(held, b"?", 0)
    with pytest.raises(AccountFault, match="does not say what an attempt uses, so no step is started; end the process"):
        await others(feedback)
    os.close(held)
    assert await others(feedback) == [], "nobody holds it any more"


async def test_one_process_claims_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "_WAIT_SECONDS", 0.1)
    trainer, feedback = Account(tmp_path, "trainer"), Account(tmp_path, "feedback")
    async with trainer.alone():
        with pytest.raises(AccountFault, match="a process has held"):
            await others(feedback)
    assert await others(feedback) == []


def test_services_share_the_machine_and_each_keeps_to_its_part() -> None:
    part = Machine(cores=4, memory_mb=8000, step_cores=4, step_memory_mb=2000)
    slots = Slots(part, lambda: (), whole=Whole(6, 10_000))
    assert slots.free() == Free(4, 8000, None)
    assert slots.free(others=[Counted(4, 6000, 0, ())]) == Free(2, 4000, None)
    assert slots.free(others=[Counted(9, 16_000, 0, ())]) == Free(0, 0, None)
