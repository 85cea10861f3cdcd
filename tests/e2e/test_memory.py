"""A training whose process the kernel kills because memory ran out completes under the same limit, in smaller parts."""

import pytest

from schemas.jobs import StepFailed, StepRequested
from tests.e2e.system import System
from tests.e2e.trainings import PIPELINE, training
from tests.memory_group import limited_memory, why_not

LIMIT = 1800 * 2**20
"""For the service and the training. Measured: a process takes 600 MB besides its batch, which takes 1600 MB whole and 800 MB in halves."""
ROWS = 4096


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
async def test_a_training_that_the_kernel_kills_for_memory_completes_with_half_the_rows_at_once(system: System) -> None:
    """`tests/integration/trainer/test_recovered.py` shows that the losses stay the same."""
    settings = training(1)
    settings["optimiser"] |= {"batch_size": ROWS}
    trainer = system.services["trainer"]
    for process in trainer.warm():  # the next one is in the group too
        process.kill()
    with limited_memory(trainer.pid, LIMIT):
        job_id = system.start_job(pipeline=PIPELINE, training=settings)
        system.wait_job(job_id)
    history = [event.data for event in await system.history(job_id)]
    faults = [f"{data.fault.cause}: {data.fault.message}" for data in history if isinstance(data, StepFailed)]
    assert faults == ["memory: the process was killed by the kernel because memory ran out (SIGKILL)"]
    asked = [data.memory_failures for data in history if isinstance(data, StepRequested) and data.step == "train"]
    assert asked == [0, 1]
