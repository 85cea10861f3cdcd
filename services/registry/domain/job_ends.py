"""Keeps which jobs have ended, so that a version is not taken away from a job that found it and still runs.

A row is one job, and comes from the orchestrator's events alone; of them the one with the highest number counts (rule 2). Nothing is
decided about it.
"""

from collections.abc import Mapping
from typing import Any

from schemas.envelope import Event
from schemas.jobs import JobCancelled, JobCompleted, JobControlled, JobFailed
from services.chassis.kernel.aggregate import AggregateType, Ref, State, opening

JOB_END = "job_end"
ENDINGS = (JobCompleted, JobFailed, JobCancelled)
FACTS = (*ENDINGS, JobControlled)
"""Types of events that say whether a job has ended; a retry begins a failed one again."""


class JobEndState(State):
    """One job."""

    number: int = 0
    """Of the orchestrator's event that says so."""
    ended: bool = False


class JobEnds(AggregateType):
    """How ends of jobs are stored for queries."""

    def __init__(self) -> None:
        super().__init__(JOB_END, JobEndState, {"ended": "boolean"})

    def values(self, state: JobEndState) -> Mapping[str, Any]:
        """Return the values of the query columns: a pure function of the state."""
        return {"ended": state.ended}


def end_ref(event: Event) -> Ref | None:
    """Return the reference to the job that an event ends or begins again; None for any other event."""
    data = event.data
    if isinstance(data, JobControlled) and data.control == "retry":
        return Ref(JOB_END, data.job_id)
    return Ref(JOB_END, data.job_id) if isinstance(data, ENDINGS) else None


def after_end(state: JobEndState, event: Event) -> JobEndState:
    """Return the row after an event about the end of a job."""
    number = event.sequence or 0
    if state.opened_by and number <= state.number:
        return state
    return state.model_copy(update={"number": number, "ended": isinstance(event.data, ENDINGS), **opening(event)})
