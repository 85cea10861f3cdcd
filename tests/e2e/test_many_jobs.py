"""Several jobs at once on one machine: they share its slots, survive kill -9 of their processes, and make versions of one model."""

import json
from pathlib import Path

import psutil

from schemas.jobs import StepFailed, StepStarted
from schemas.progress import StepProgressed
from schemas.topics import PROGRESS
from services.chassis.executor.folders import log_of
from tests.e2e.system import System, wait_for
from tests.e2e.trainings import PIPELINE, REGISTER, checkpoints, training


def process_of(system: System, job_id: str) -> psutil.Process:
    """The process of a job's first training, by the log that it writes."""
    log = log_of(system.home, "trainer", job_id, "train", 1)
    (found,) = [child for child in system.services["trainer"].children() if log in written_by(child)]
    return found


def written_by(process: psutil.Process) -> list[Path]:
    try:
        return [Path(file.path) for file in process.open_files()]
    except psutil.Error:  # it has ended
        return []


async def test_five_jobs_train_at_once_and_each_makes_a_version_although_two_of_their_processes_are_killed(
    system: System,
) -> None:
    job_ids = [
        system.start_job(
            pipeline=[*PIPELINE, REGISTER], training=training(400), register_as="shared", requester=f"tenant-{number}"
        )
        for number in range(5)
    ]
    trainer = system.services["trainer"]

    def told() -> str:
        return json.dumps([system.job(job_id) for job_id in job_ids], indent=1)

    wait_for(lambda: len(trainer.children()) == 5, told)  # all five at the same time
    left = set(job_ids[:2])

    def kill() -> bool:
        """Kill the processes of these jobs, each at its first checkpoint: on a slow machine one may end before another begins."""
        for job_id in [job_id for job_id in left if checkpoints(system, job_id)]:
            process_of(system, job_id).kill()
            left.remove(job_id)
        return not left

    wait_for(kill, told)
    assert len({system.wait_job(job_id)["version"] for job_id in job_ids}) == 5

    failed = [e.data for job_id in job_ids for e in await system.history(job_id) if isinstance(e.data, StepFailed)]
    assert len(failed) == 2
    assert {data.step for data in failed} == {"train"}
    for data in failed:
        history = await system.history(data.job_id)
        second = {
            e.id for e in history if isinstance(e.data, StepStarted) and (e.data.step, e.data.attempt) == ("train", 2)
        }
        progress = [e for e in await system.history(data.job_id, PROGRESS.name) if e.causation_id in second]
        resumed = [e.data.done for e in progress if isinstance(e.data, StepProgressed) and e.data.done]
        assert not resumed or min(resumed) >= 20, "it went on from its checkpoint"
