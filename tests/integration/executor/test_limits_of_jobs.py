"""A job's time and budget end a training that runs: the decisions of the orchestrator's domain, a real worker and a real child."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.base import EventData
from schemas.jobs import JobFailed, StepCancelRequested, StepRequested
from schemas.progress import StepProgressed
from schemas.usage import Prices
from services.chassis.executor.attempts import attempt_ref
from services.chassis.executor.folders import checkpoints_of
from services.chassis.executor.supervise import SubprocessRunner
from services.chassis.storage.sources.settings import SourceSettings
from tests.executor import Executor
from tests.tiny_model import build
from tests.toy import until
from tests.trainer import put_lines, row
from tests.unit.orchestrator.scenario import POLICY, JobScenario

PIPELINE = [
    {"name": "prepare", "kind": "prepare"},
    {"name": "train", "kind": "train", "method": "sft", "inputs": {"dataset": "prepare.dataset"}},
]
TRAINING = {
    "precision": "fp32", "max_length": 64, "checkpoint_steps": 2,
    "optimiser": {"steps": 6, "batch_size": 2, "learning_rate": 0.01},
}  # fmt: skip


def failure(decided: Sequence[EventData]) -> str:
    """Return the words of the job's end, before which its attempt was asked to stop."""
    asked, ended = decided
    assert isinstance(asked, StepCancelRequested)
    assert isinstance(ended, JobFailed)
    return ended.fault.message


async def test_a_training_ends_in_words_with_a_checkpoint_when_its_time_is_up_and_a_retry_goes_on_until_its_budget_is_spent(
    executor: Executor, tmp_path: Path
) -> None:
    base = build(tmp_path / "base")
    root = checkpoints_of(tmp_path, "job-1", "train")
    job = JobScenario(policy=POLICY.model_copy(update={"prices": Prices(currency="EUR", core_hour=36.0)}))
    job.requested(pipeline=PIPELINE, base_model=str(base), training=TRAINING, max_duration=100, budget=10)
    rows = [row(number, f"colour {number}?", "red.") for number in range(8)]
    asked: Sequence[EventData] = job.completed("prepare", outputs={"dataset": put_lines(tmp_path, train=rows)})

    def checkpointed(attempt: int, step: int) -> bool:
        return bool(list(root.glob(f"{attempt}/*/step-{step:08}/manifest.json")))

    async def ended(attempt: int) -> bool:
        return await executor.status(attempt_ref("job-1", "train", attempt)) == "cancelled"

    async def limited(attempt: int, step: int, seconds: float, **counted: Any) -> str:
        """Let an attempt train until its checkpoint, and then pass so many seconds; return in which words the job ends."""
        await executor.deliver(*(one for one in asked if isinstance(one, StepRequested)))
        await until(lambda: checkpointed(attempt, step), 600)
        job.started("train", attempt, **counted)
        decided = job.after(seconds)
        await executor.deliver(*(one for one in decided if isinstance(one, StepCancelRequested)))
        await until(lambda: ended(attempt), 600)
        job.stopped("train", attempt)
        return failure(decided)

    sources = SourceSettings(folders=(base,))
    async with executor.working(SubprocessRunner("tests.held_training"), lease_seconds=600, sources=sources):
        assert "max_duration: the job had not ended 100 s after" in await limited(1, 2, 100.0)
        asked = job.control("retry")
        assert "budget: the job has cost 10 EUR since" in await limited(2, 4, 10.0, cores=100)
    done = [
        event.data.done
        for event in executor.progress.events
        if isinstance(event.data, StepProgressed) and event.data.attempt == 2 and event.data.done
    ]
    assert min(done) >= 2, "it went on from the checkpoint"
    assert max(done) < 6
