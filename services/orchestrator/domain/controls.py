"""Decides what becomes of requests to control a job: retry, pause, resume and change of priority.

A request is a fact (rule 2 of docs/architecture.md): of each kind the one that was appended to the log last counts, in whatever order they
are read and whatever the clocks of their senders say. The decision on it is
an own event, which alone changes the job. The state requires a decision while the latest request is not the one that was decided on.
"""

from collections.abc import Iterator
from datetime import datetime

from schemas.jobs import AttemptsSoFar, JobControlled, JobControlRefused
from schemas.reasons import Reason, shown
from schemas.requests import CONTROLS, PRIORITY_AT_MOST
from services.orchestrator.domain.state import ENDED, Attempt, ControlAnswer, ControlRequest, JobState

_KIND_OF = {"pause": "hold", "resume": "hold"}


def kind_of(control: str) -> str:
    """Return the kind under which a request is stored; pause and resume are of one kind, and so are all unknown ones."""
    return _KIND_OF.get(control, control if control in CONTROLS else "unknown")


def with_request(state: JobState, request: ControlRequest) -> JobState:
    """Return the job with one more request, which may be known already or be earlier than one that is."""
    kind = kind_of(request.control)
    known = state.controls.get(kind)
    if known is not None and known.logged >= request.logged:
        return state
    return state.model_copy(update={"controls": {**state.controls, kind: request}})


def with_answer(state: JobState, data: JobControlled | JobControlRefused, at: datetime) -> JobState:
    """Return the job after the decision on a request."""
    kind = kind_of(data.control)
    refused = data.reasons if isinstance(data, JobControlRefused) else ()
    answers = {**state.answers, kind: ControlAnswer(request_id=data.request_id, control=data.control, refused=refused)}
    state = state.model_copy(update={"answers": answers})
    if isinstance(data, JobControlRefused):
        return state
    match data.control:
        case "pause" | "resume":
            return state.model_copy(update={"held": data.control == "pause"})
        case "priority":
            return state.model_copy(update={"priority": data.priority})
        case "checkpoint":
            return state.model_copy(update={"checkpoints": {one.step: one.attempts for one in data.attempts}})
        case "retry":
            return state.model_copy(
                update={"ending": None, "retried_at": at, "spent": {tried.step: tried.attempts for tried in data.attempts}}
            )
    return state


def pending(state: JobState) -> Iterator[ControlRequest]:
    """Yield the requests that no decision was made on."""
    for kind, request in sorted(state.controls.items()):
        answer = state.answers.get(kind)
        if answer is None or not answer.is_on(request):
            yield request


def answer(state: JobState, request: ControlRequest, now: datetime) -> JobControlled | JobControlRefused:
    """Return the decision on a request."""
    named = {"job_id": request.job_id, "control": request.control, "request_id": request.event_id}
    if reasons := tuple(_faults(state, request, now)):
        return JobControlRefused(**named, reasons=reasons)
    return JobControlled(
        **named,
        requester=request.requester,
        reason=request.reason,
        priority=request.priority if request.control == "priority" else None,
        attempts=_attempts(state, request.control),
    )


def _attempts(state: JobState, control: str) -> tuple[AttemptsSoFar, ...]:
    """Return the latest attempts at all steps for a retry, the running ones for a checkpoint, and none for anything else."""
    if control not in ("retry", "checkpoint"):
        return ()
    latest = [(step, state.latest(step)) for step in sorted(state.attempts) if state.latest(step)]
    if control == "checkpoint":
        latest = [(step, number) for step, number in latest if _runs(state.attempts[step][number])]
    return tuple(AttemptsSoFar(step=step, attempts=number) for step, number in latest)


def _runs(attempt: Attempt) -> bool:
    return attempt.open and attempt.started is not None


def _faults(state: JobState, request: ControlRequest, now: datetime) -> Iterator[Reason]:
    status = state.status
    said = f"the job is {status}"
    if request.control not in CONTROLS:
        yield _reason(request, "nothing is called so", f"use one of {', '.join(CONTROLS)}")
    elif request.control == "retry":
        if status != "failed":
            yield _reason(request, said, "only a failed job can be retried; send another one under a new job_id")
        elif state.cancel:
            yield _reason(request, "the job is to be cancelled", "send it under a new job_id")
        elif state.accepted and (deadline := state.accepted.request.deadline) and deadline <= now:
            yield _reason(
                request,
                f"the job's deadline {deadline.isoformat()} has passed",
                "send it under a new job_id with a later one",
            )
    elif status in ENDED or status == "cancelling":
        remedy = "nothing runs that it could change" if status != "failed" else "retry it first"
        yield _reason(request, said, remedy)
    elif request.control == "resume" and not state.held:
        yield _reason(request, "the job is not paused", "nothing has to be done")
    elif request.control == "checkpoint" and not _attempts(state, "checkpoint"):
        yield _reason(request, "none of the job's steps runs", "ask again when one does")
    elif request.control == "priority":
        yield from _faults_of_priority(request.priority)


def _faults_of_priority(priority: int | None) -> Iterator[Reason]:
    if priority is None or abs(priority) > PRIORITY_AT_MOST:
        remedy = f"send a number from {-PRIORITY_AT_MOST} to {PRIORITY_AT_MOST}"
        yield Reason(field="priority", value=shown(priority), message="this is no priority", remedy=remedy)


def _reason(request: ControlRequest, message: str, remedy: str) -> Reason:
    return Reason(field="control", value=shown(request.control), message=message, remedy=remedy)
