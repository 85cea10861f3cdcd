"""An executor whose disk fills up in the middle of every step, round after round, with real children: the long form."""

import random
from dataclasses import dataclass
from pathlib import Path

from services.chassis.executor import disk_space, metrics
from services.chassis.executor.attempts import attempt_ref
from services.chassis.executor.folders import UNFINISHED, checkpoints_of
from services.chassis.executor.supervise import SubprocessRunner
from tests.executor import Executor
from tests.faults.small_disk import fill
from tests.steps import request
from tests.toy import until

SIZE = "8m"
_LEAST_BYTES, _MOST_BYTES = 1_500_000, 3_500_000
"""Free bytes of the disk: enough to start a step, too few to finish it."""


@dataclass
class FullDisk:
    """The result of the rounds."""

    rounds: int = 0
    """Number of rounds whose step completed."""
    postponed: int = 0
    """Number of runs whose lease was released."""
    burnt: int = 0
    """Number of attempts that did not complete."""
    repeated: int = 0
    """Number of complete checkpoints that were written again."""
    half_written: int = 0
    """Number of incomplete files that runs left."""

    @property
    def well(self) -> bool:
        """Whether the disk was full in each round and nothing was lost."""
        return 0 < self.rounds <= self.postponed and not (self.burnt or self.repeated or self.half_written)


async def full_again_and_again(executor: Executor, disk: Path, rounds: int, seed: int = 0) -> FullDisk:
    """Fill `disk`, on which `executor` has its home, in each round.

    Raises AssertionError if a step is not released or not resumed.
    """
    chance, found = random.Random(seed), FullDisk()
    before = metrics.POSTPONED.labels(executor.name)._value.get()
    async with executor.working(SubprocessRunner("tests.child"), own=True):
        for number in range(rounds):
            fill(disk / "filler", leave=chance.randint(_LEAST_BYTES, _MOST_BYTES))
            await _given_back_and_taken_up(executor, disk, f"job-{number}", found)
    found.postponed = int(metrics.POSTPONED.labels(executor.name)._value.get() - before)
    return found


async def _given_back_and_taken_up(executor: Executor, disk: Path, job: str, found: FullDisk) -> None:
    ref, folder = attempt_ref(job, "bulky", 1), checkpoints_of(executor.settings.home, job, "bulky")

    def said() -> str:
        return str(executor.runtime.health.missing.get(disk_space.CONDITION, ""))

    async def ended() -> bool:
        return await executor.status(ref) in ("completed", "failed", "cancelled")

    await executor.deliver(request(job, step="bulky"))
    await until(lambda: f"{job}/bulky/1 waits" in said(), what=said)
    found.burnt += await executor.said(ref) != ["StepStarted"]
    found.half_written += len(list(folder.rglob(f"{UNFINISHED}*")))
    found.half_written += len(list((executor.settings.home / "tmp").glob("*/*")))
    made = len(list(folder.rglob("part-*")))
    (disk / "filler").unlink()
    await until(ended, 240, what=said)
    await until(lambda: not said(), what=said)
    result = (await executor.state(ref)).result
    found.burnt += await executor.said(ref) != ["StepStarted", "StepStarted", "StepCompleted"]
    found.repeated += result is None or result.metrics != {"first": made, "last": 10}
    found.rounds += 1
