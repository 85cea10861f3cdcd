"""The trainer's child, whose training waits at a checkpoint to be killed or stopped: `python -m tests.held_training`.

The first attempt waits behind its checkpoint of step 2, the second behind that of step 4; later ones do not wait.
"""

import time
from typing import Any

from schemas.jobs import StepResult
from services.chassis.executor.child import Context
from services.trainer.child import run, train

_HELD = {1: 2, 2: 4}
"""Behind which checkpoint an attempt waits."""


def hold(context: Context, at: int | None) -> None:
    """Let trainings of this process wait behind their checkpoint of step `at` until a stop is asked for."""
    from services.trainer.engine.checkpoints import Checkpoints

    save = Checkpoints.save

    def save_and_wait(checkpoints: Checkpoints, step: int, *state: Any) -> None:
        save(checkpoints, step, *state)
        while step == at and not context.stopping:
            time.sleep(0.01)

    Checkpoints.save = save_and_wait  # type: ignore[method-assign, assignment]


def held(context: Context) -> StepResult:
    """Train, and wait behind the checkpoint of this attempt."""
    hold(context, _HELD.get(context.task.attempt))
    return train(context)


if __name__ == "__main__":
    run({"train": held})
