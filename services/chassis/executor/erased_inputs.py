"""Lets a step read what remains of its inputs where rows of them were erased, and say how many."""

from schemas.results import ERASED_INPUTS
from services.chassis.executor.messages import ChildTask
from services.chassis.storage.artifacts.erased import Erasures


def without_erased(task: ChildTask) -> tuple[ChildTask, dict[str, str]]:
    """Return the task with what remains of each input, and the fact that says how many rows were erased from which; no fact for none.

    Whatever follows from digests of inputs, such as a recipe and so the checkpoints that may be used, follows from what is read.
    """
    erasures = Erasures(task.artifacts)
    found = {name: erasures.remaining(ref.sha256) for name, ref in task.inputs.items()}
    remaining = {name: one for name, one in found.items() if one is not None}
    if not remaining:
        return task, {}
    inputs = {**task.inputs, **{name: one.ref for name, one in remaining.items()}}
    said = ", ".join(f"{one.rows} of {name}" for name, one in sorted(remaining.items()))
    return task.model_copy(update={"inputs": inputs}), {
        ERASED_INPUTS: f"rows were erased before this step read them: {said}"
    }
