"""Folds one event into a job's state; a replay runs nothing else. Events can be folded whatever came before them.

Rule 2 of docs/architecture.md: a field group is written by own events in their order, or by facts keyed by step and attempt, or by
minimum and maximum; no branch below reads a group that it does not write. Rule 8: folding an event again changes nothing.
"""

from datetime import datetime
from typing import Any

from schemas.envelope import Event
from schemas.jobs import (
    FeedbackRecorded,
    JobAccepted,
    JobCancelled,
    JobCompleted,
    JobControlled,
    JobControlRefused,
    JobFailed,
    JobRejected,
    StepCancelled,
    StepCancelRequested,
    StepCheckpointRequested,
    StepCompleted,
    StepEventData,
    StepFailed,
    StepPriorityChanged,
    StepRequested,
    StepStarted,
)
from schemas.requests import JobCancelRequested, JobControlRequested, JobRequested
from services.chassis.kernel.records import Logged
from services.orchestrator.domain.content import content_digest
from services.orchestrator.domain.controls import with_answer, with_request
from services.orchestrator.domain.requests import BEFORE_ALL, decided, heard
from services.orchestrator.domain.state import (
    Accepted,
    Attempt,
    CancelRequested,
    Closed,
    ControlRequest,
    DecidedOn,
    Heard,
    JobOutcome,
    JobState,
    Origin,
    Outcome,
    Rejected,
    Request,
    Requested,
    Started,
)


def evolve(state: JobState, event: Event, logged: Logged | None) -> JobState:
    """The job after `event`, which the log has at `logged`."""
    at = event.time
    match event.data:
        case JobRequested() as data:
            return heard(state, _request(event, data, logged))
        case JobCancelRequested() as data:
            return _cancel_requested(state, event, data, logged)
        case JobControlRequested() as data:
            return with_request(state, _control_requested(event, data, logged))
        case (JobControlled() | JobControlRefused()) as data:
            return with_answer(state, data, at)
        case JobAccepted() as data:
            accepted = Accepted(at=at, request=data.request, plan=data.plan, policy=data.policy)
            return decided(state.model_copy(update={"accepted": accepted}), _decided_on(event, data))
        case JobRejected() as data:
            rejected = Rejected(at=at, reasons=data.reasons)
            return decided(state.model_copy(update={"rejected": rejected}), _decided_on(event, data))
        case JobCompleted(model=model, version=version):
            return _ended(state, JobOutcome(at=at, status="completed", model=model, version=version))
        case JobFailed(step=step, fault=fault):
            return _ended(state, JobOutcome(at=at, status="failed", step=step, fault=fault))
        case JobCancelled(reason=reason):
            return _ended(state, JobOutcome(at=at, status="cancelled", reason=reason))
        case StepCheckpointRequested(step=step):
            waiting = {name: number for name, number in state.checkpoints.items() if name != step}
            return state.model_copy(update={"checkpoints": waiting})
        case StepEventData() as data:
            return _of_step(state, event, data, logged)
    return state


def _request(event: Event, data: JobRequested, logged: Logged | None) -> Heard:
    if logged is None:
        raise ValueError(f"JobRequested {event.id} has no position in the log; fold it with its position")
    content = content_digest(data.request, data.faults)
    wish = Request(
        at=event.time, event_id=event.id, job_id=data.job_id, content=content, request=data.request, faults=data.faults,
        traceparent=event.traceparent, logged=logged,
    )  # fmt: skip
    return Heard(logged=logged, event_id=event.id, content=content, wish=wish)


def _decided_on(event: Event, data: JobAccepted | JobRejected) -> DecidedOn:
    return DecidedOn(content=data.request_sha256, event_id=event.causation_id)


def _cancel_requested(state: JobState, event: Event, data: JobCancelRequested, logged: Logged | None) -> JobState:
    wish = CancelRequested(at=event.time, event_id=event.id, requester=data.requester, reason=data.reason, logged=logged)
    return state if _comes_first(state.cancel, wish) else state.model_copy(update={"cancel": wish})


def _control_requested(event: Event, data: JobControlRequested, logged: Logged | None) -> ControlRequest:
    if logged is None:
        raise ValueError(f"JobControlRequested {event.id} has no position in the log; fold it with its position")
    return ControlRequest(
        logged=logged, event_id=event.id, job_id=data.job_id, control=data.control, priority=data.priority,
        requester=data.requester, reason=data.reason,
    )  # fmt: skip


def _comes_first(known: CancelRequested | Outcome | Origin | None, new: CancelRequested | Outcome | Origin) -> bool:
    """Of two facts that exclude each other the earlier counts, in any reading order: by time, id, then log position."""
    return known is not None and _precedence(known) <= _precedence(new)


def _precedence(fact: CancelRequested | Outcome | Origin) -> tuple[datetime, str, Logged]:
    return fact.at, fact.event_id or "", fact.logged or BEFORE_ALL


def _ended(state: JobState, ending: JobOutcome) -> JobState:
    return state.model_copy(update={"ending": ending})


def _of_step(state: JobState, event: Event, data: StepEventData, logged: Logged | None) -> JobState:
    attempts = state.attempts.get(data.step, {})
    known = attempts.get(data.attempt, Attempt())
    attempt = known.model_copy(update=_of_attempt(known, event, data, logged))
    return state.model_copy(update={"attempts": {**state.attempts, data.step: {**attempts, data.attempt: attempt}}})


def _of_attempt(known: Attempt, event: Event, data: StepEventData, logged: Logged | None) -> dict[str, Any]:
    at = event.time
    match data:
        case StepRequested(deadline=deadline, not_before=not_before, priority=priority):
            return {"asked": Requested(at=at, deadline=deadline, not_before=not_before, priority=priority)}
        case StepPriorityChanged(priority=priority):
            return {"asked": known.asked and known.asked.model_copy(update={"priority": priority})}
        case StepCancelRequested(reason=reason):
            return {"closed": Closed(at=at, reason=reason)}
        case StepStarted(worker=worker, cores=cores, devices=devices):
            times = event.sequence or 1
            started = Started(at=at, times=times, worker=worker, cores=cores or 0, devices=devices or 0)
            return {"started": _start(known.started, started)}
        case StepCompleted(result=result, usage=usage):
            return _first(known, Outcome(kind="completed", result=result, usage=usage, **_told(event, logged)))
        case StepFailed(fault=fault, usage=usage):
            return _first(known, Outcome(kind="failed", fault=fault, usage=usage, **_told(event, logged)))
        case StepCancelled(usage=usage):
            return _first(known, Outcome(kind="cancelled", usage=usage, **_told(event, logged)))
        case FeedbackRecorded():
            origin = Origin(at=at, event_id=event.id, logged=logged)
            return {} if _comes_first(known.feedback_origin, origin) else {"feedback": data, "feedback_origin": origin}
    return {}


def _told(event: Event, logged: Logged | None) -> dict[str, Any]:
    return {"at": event.time, "event_id": event.id, "logged": logged}


def _start(known: Started | None, new: Started) -> Started:
    """A start is the first event of an executor about an attempt, so the event's number identifies the start."""
    if known is None:
        return new
    latest = max(known, new, key=lambda start: (start.times, start.worker))
    return latest.model_copy(update={"at": min(known.at, new.at)})


def _first(known: Attempt, new: Outcome) -> dict[str, Any]:
    """Two outcomes of one attempt would be a bug of its executor; the same one counts in any reading order."""
    return {} if _comes_first(known.outcome, new) else {"outcome": new}
