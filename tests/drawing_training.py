"""The trainer's child as `python -m tests.drawing_training`, whose training also says which random number it drew first."""

from schemas.jobs import StepResult
from services.chassis.executor.child import Context
from services.trainer import child


def drawing(context: Context) -> StepResult:
    """Draw from the generator that libraries use, then train."""
    import numpy as np

    drawn = float(np.random.random())  # libraries use this generator
    made = child.train(context)
    return made.model_copy(update={"metrics": {**made.metrics, "drawn": drawn}})


if __name__ == "__main__":
    child.run({"train": drawing})
