"""A job whose training is split over two processes with FSDP, from the request to the version, although one of the processes is killed."""

import json

import psutil

from schemas.jobs import StepCompleted, StepFailed
from tests.e2e.system import Process, System, wait_for
from tests.e2e.trainings import PIPELINE, REGISTER, checkpoints, training

SPLIT = {
    "NEUROWEAVER_TRAINER_LAUNCHER": "torchrun",
    "NEUROWEAVER_TRAINER_PROCESSES": "2",
    "NEUROWEAVER_TRAINER_STRATEGY": "fsdp",
}
RANK = "services.trainer.rank"


def ranks(trainer: Process) -> list[psutil.Process]:
    """The processes that share the training with its first one."""
    return [process for process in psutil.Process(trainer.pid).children(recursive=True) if RANK in process.cmdline()]


async def test_a_training_split_with_fsdp_loses_a_process_and_still_makes_a_version_that_says_how_it_was_trained(
    system: System,
) -> None:
    trainer = system.services["trainer"]
    with trainer.restarted_with(**SPLIT):
        job_id = system.start_job(pipeline=[*PIPELINE, REGISTER], training=training(200))
        wait_for(lambda: bool(checkpoints(system, job_id)), lambda: json.dumps(system.job(job_id), indent=1))
        (second,) = ranks(trainer)
        second.kill()
        assert system.wait_job(job_id)["version"] == "1.0.0"

    history = [event.data for event in await system.history(job_id)]
    assert [(data.step, data.attempt) for data in history if isinstance(data, StepFailed)] == [("train", 1)]
    (trained,) = [data for data in history if isinstance(data, StepCompleted) and data.step == "train"]
    facts = trained.result.facts
    assert (facts["processes"], facts["strategy"], facts["backend"]) == ("2", "fsdp", "gloo")
