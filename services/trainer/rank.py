"""Runs one more process of a training that several share; it computes its part of every batch, and makes nothing of its own."""

import logging

from schemas.jobs import StepResult
from services.chassis.executor.child import Context
from services.trainer.child import run


def train(context: Context) -> StepResult:
    """Run the part of a step of kind `train`; the first process logs what all of them do."""
    logging.getLogger().setLevel(logging.WARNING)
    from services.trainer.steps.train import train

    return train(context)


if __name__ == "__main__":
    run({"train": train})
