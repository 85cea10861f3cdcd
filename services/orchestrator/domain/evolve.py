"""Why: folds one event into a job; all that a replay runs. Every event finds its place, whatever came before it.

Rule 2 of the design: a group is written by own events in their order, or by facts keyed by step and attempt, or by first
and minimum within one topic's key; no branch below reads a group that it does not write.
"""

from typing import Any

from schemas.envelope import Event
from schemas.jobs import (
    FeedbackRecorded,
    JobAccepted,
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobRejected,
    StepCancelled,
    StepCancelRequested,
    StepCompleted,
    StepEventData,
    StepFailed,
    StepRequested,
    StepStarted,
)
from schemas.requests import JobCancelRequested, JobRequested
from services.orchestrator.domain.content import content_digest
from services.orchestrator.domain.state import (
    CONFLICTS_KEPT,
    Accepted,
    Asked,
    Attempt,
    CancelWish,
    Closed,
    Ending,
    JobState,
    Outcome,
    Rejected,
    Started,
    Wish,
)


def evolve(state: JobState, event: Event) -> JobState:
    """The job after `event`."""
    at = event.time
    match event.data:
        case JobRequested() as data:
            return _requested(state, event, data)
        case JobCancelRequested() as data:
            return _cancel_requested(state, event, data)
        case JobAccepted() as data:
            accepted = Accepted(at=at, request=data.request, plan=data.plan, policy=data.policy)
            return state.model_copy(update={"accepted": accepted})
        case JobRejected(reasons=reasons):
            return state.model_copy(update={"rejected": Rejected(at=at, reasons=reasons)})
        case JobCompleted(model=model, version=version):
            return _ended(state, Ending(at=at, status="completed", model=model, version=version))
        case JobFailed(step=step, fault=fault):
            return _ended(state, Ending(at=at, status="failed", step=step, fault=fault))
        case JobCancelled(reason=reason):
            return _ended(state, Ending(at=at, status="cancelled", reason=reason))
        case StepEventData() as data:
            return _of_step(state, event, data)
    return state


def _requested(state: JobState, event: Event, data: JobRequested) -> JobState:
    """The first request counts; all requests of a job share a key, so the log has one first."""
    content = content_digest(data.request, data.faults)
    if state.wish is None:
        wish = Wish(
            at=event.time, event_id=event.id, job_id=data.job_id, content=content, request=data.request, faults=data.faults
        )  # fmt: skip
        origin = {"correlation_id": event.correlation_id, "opened_by": event.id, "traceparent": event.traceparent}
        return state.model_copy(update={"wish": wish, **origin})
    if content == state.wish.content or len(state.conflicts) >= CONFLICTS_KEPT:
        return state
    return state.model_copy(update={"conflicts": (*state.conflicts, event.id)})


def _cancel_requested(state: JobState, event: Event, data: JobCancelRequested) -> JobState:
    wish = CancelWish(at=event.time, event_id=event.id, requester=data.requester, reason=data.reason)
    if state.cancel and (state.cancel.at, state.cancel.event_id) <= (wish.at, wish.event_id):
        return state
    return state.model_copy(update={"cancel": wish})


def _ended(state: JobState, ending: Ending) -> JobState:
    return state.model_copy(update={"ending": ending})


def _of_step(state: JobState, event: Event, data: StepEventData) -> JobState:
    attempts = state.attempts.get(data.step, {})
    known = attempts.get(data.attempt, Attempt())
    attempt = known.model_copy(update=_of_attempt(known, event, data))
    return state.model_copy(update={"attempts": {**state.attempts, data.step: {**attempts, data.attempt: attempt}}})


def _of_attempt(known: Attempt, event: Event, data: StepEventData) -> dict[str, Any]:
    at = event.time
    match data:
        case StepRequested(deadline=deadline, not_before=not_before):
            return {"asked": Asked(at=at, deadline=deadline, not_before=not_before)}
        case StepCancelRequested(reason=reason):
            return {"closed": Closed(at=at, reason=reason)}
        case StepStarted(worker=worker):
            first, times = (known.started.at, known.started.times) if known.started else (at, 0)
            return {"started": Started(at=first, times=times + 1, worker=worker)}
        case StepCompleted(result=result):
            return {"outcome": Outcome(at=at, kind="completed", result=result)}
        case StepFailed(fault=fault):
            return {"outcome": Outcome(at=at, kind="failed", fault=fault)}
        case StepCancelled():
            return {"outcome": Outcome(at=at, kind="cancelled")}
        case FeedbackRecorded():
            return {"feedback": data}
    return {}
