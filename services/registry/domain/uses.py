"""Keeps which step stored or learnt from which data, so that a row of a data set leads to the trainings that saw it.

A row is one attempt of a trainer's step, and comes from its StepCompleted alone (rule 2); nothing is decided about it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from schemas.artifacts import ArtifactRef
from schemas.base import Frozen
from schemas.envelope import Event
from schemas.jobs import StepCompleted
from schemas.results import ROWS_USED
from services.chassis.kernel.aggregate import AggregateType, Ref, State, opening
from services.registry.domain.datasets import stored_by

DATA_USE = "data_use"


class DataUse(Frozen):
    """What an attempt stored, or what it learnt from."""

    at: datetime
    job_id: str
    step: str
    attempt: int
    stored: str | None = None
    """Digest of the data set that it stored."""
    outputs: tuple[str, ...] = ()
    """Digests of the artifacts with that data set's rows."""
    ledger: ArtifactRef | None = None
    """The rows that it learnt from."""
    inputs: tuple[str, ...] = ()
    """Digests of the artifacts that it read."""


class DataUseState(State):
    """One attempt."""

    use: DataUse | None = None


class DataUses(AggregateType):
    """How uses of data are stored for queries."""

    def __init__(self) -> None:
        super().__init__(DATA_USE, DataUseState, {"job_id": "text", "stored": "text", "used_at": "timestamptz"})

    def values(self, state: DataUseState) -> Mapping[str, Any]:
        """Return the values of the query columns: a pure function of the state."""
        use = state.use
        return {"job_id": use and use.job_id, "stored": use and use.stored, "used_at": use and use.at}


def use_ref(completed: StepCompleted) -> Ref | None:
    """Return the reference to the use that a step tells; None if it tells none, as those of earlier releases."""
    if ROWS_USED not in completed.result.outputs and stored_by(completed) is None:
        return None
    return Ref(DATA_USE, f"{completed.job_id}/{completed.step}/{completed.attempt}")


def after_use(state: DataUseState, event: Event, completed: StepCompleted) -> DataUseState:
    """Return the row after a step was completed: the earliest such fact counts, in whatever order they are read."""
    known = state.use
    if known and (known.at, state.opened_by or "") <= (event.time, event.id):
        return state
    result, told = completed.result, stored_by(completed)
    use = DataUse(
        at=event.time,
        job_id=completed.job_id,
        step=completed.step,
        attempt=completed.attempt,
        stored=told and told.sha256,
        outputs=tuple(sorted(ref.sha256 for ref in result.outputs.values())) if told else (),
        ledger=result.outputs.get(ROWS_USED),
        inputs=tuple(sorted(result.inputs.values())),
    )
    return state.model_copy(update={"use": use, **opening(event)})
