"""Decides what follows from a job's state: one decision at a time; the caller repeats until there is none.

Level-triggered (rule 5 of docs/architecture.md): `wants` lists the decisions that the state requires, each with the time from which
it does. `decide` takes the first whose time has come, and `due` returns the time of the next, so the two cannot disagree.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from schemas.base import EventData
from schemas.bounds import fitting_fault
from schemas.jobs import (
    CAUSES,
    JobAccepted,
    JobCancelled,
    JobCompleted,
    JobFailed,
    JobRejected,
    StepCancelRequested,
    StepFault,
    StepRequested,
    StepResult,
)
from schemas.reasons import Reason
from schemas.results import MODEL_NAME, MODEL_VERSION
from schemas.steps import PlannedStep, Policy
from services.orchestrator.domain.planning import ancestors, producer_of
from services.orchestrator.domain.state import Accepted, Attempt, JobState, Request
from services.orchestrator.domain.validation import RejectedRequest, examine

IMMEDIATELY = datetime(1970, 1, 1, tzinfo=UTC)
Results = Mapping[str, StepResult]
"""Results of the completed steps, by name."""
_DOUBLINGS = 60
"""A larger exponent would exceed the range of a double; the limit of the wait is reached long before."""


@dataclass(frozen=True)
class Want:
    """A decision that the state requires from `at` on."""

    at: datetime
    make: Callable[[datetime], EventData]


def decide(state: JobState, defaults: Policy, now: datetime) -> EventData | None:
    """Return the next decision about the job; `defaults` is the policy for jobs that are accepted now."""
    if _undecided(state) and state.wish:
        return _verdict(state.wish, defaults, now)
    return next((want.make(now) for want in wants(state) if want.at <= now), None)


def due(state: JobState) -> datetime | None:
    """The earliest time at which `decide` returns a decision; None if it never does without another event."""
    if _undecided(state):
        return IMMEDIATELY
    return min((want.at for want in wants(state)), default=None)


def _undecided(state: JobState) -> bool:
    return state.wish is not None and state.accepted is None and state.rejected is None


def _verdict(wish: Request, defaults: Policy, now: datetime) -> EventData:
    examined = examine(wish.request, wish.faults, now)
    if isinstance(examined, RejectedRequest):
        return JobRejected(job_id=wish.job_id, reasons=examined.reasons, request_sha256=wish.content)
    return JobAccepted(
        job_id=wish.job_id, request=examined.request, plan=examined.plan, policy=defaults, request_sha256=wish.content
    )


def wants(state: JobState) -> Iterator[Want]:
    """The decisions that an accepted, unfinished job requires, most urgent first."""
    job = state.accepted
    if job is None or state.ending or state.rejected:
        return
    results = state.results
    if state.cancel:
        yield from _cancelling(state, job)
    elif all(step.name in results for step in job.plan):
        yield Want(IMMEDIATELY, lambda now: _completed(state, job))
    elif lost := _lost(state, job, results):
        yield Want(IMMEDIATELY, lambda now: _stop_one(state, job, "failing") or _failed(job, *lost))
    else:
        if deadline := job.request.deadline:
            fault = _fault_of_deadline(deadline)
            yield Want(deadline, lambda now: _stop_one(state, job, "failing") or _failed(job, None, fault))
        for step in job.plan:
            if step.name not in results:
                yield from _advance(state, job, step, results)


def _cancelling(state: JobState, job: Accepted) -> Iterator[Want]:
    """Close open attempts at once, then wait for them to stop, at most for the grace period."""
    if any(attempt.open for _, _, attempt in state.asked_attempts()):
        yield Want(IMMEDIATELY, lambda now: _stop_one(state, job, "cancel") or _cancelled(state, job))
        return
    grace = timedelta(seconds=job.policy.cancel_grace_seconds)
    closed = [attempt.closed.at for _, _, attempt in state.asked_attempts() if attempt.stopping and attempt.closed]
    yield Want(max(closed) + grace if closed else IMMEDIATELY, lambda now: _cancelled(state, job))


def _advance(state: JobState, job: Accepted, step: PlannedStep, results: Results) -> Iterator[Want]:
    """Request the first attempt when all needed steps are completed, the next when one ended; close it at its deadline."""
    number = state.latest(step.name)
    if not number:
        if all(need in results for need in step.needs):
            yield Want(IMMEDIATELY, lambda now: _request(state, job, step, 1, now))
        return
    attempt = state.attempts[step.name][number]
    if attempt.fault:
        yield Want(IMMEDIATELY, lambda now: _request(state, job, step, number + 1, now))
    elif attempt.open and attempt.asked:
        yield Want(attempt.asked.deadline, lambda now: _close(job, step, number, "deadline"))


def _request(state: JobState, job: Accepted, step: PlannedStep, number: int, now: datetime) -> StepRequested:
    wait = _backoff(job.policy, number)
    start = now + wait
    deadline = start + timedelta(seconds=job.policy.step_timeout_seconds)
    results = {name: state.result(name) for name in sorted(ancestors(job.plan, step.name))}
    lineage = {name: result for name, result in results.items() if result}
    return StepRequested(
        job_id=job.request.job_id,
        step=step.name,
        attempt=number,
        kind=step.kind,
        settings=step.settings,
        inputs={name: lineage[producer].outputs[output] for name, (producer, output) in _bindings(step).items()},
        results=lineage,
        requester=job.request.requester,
        priority=job.request.priority,
        not_before=start if wait else None,
        deadline=min(deadline, job.request.deadline) if job.request.deadline else deadline,
        memory_failures=_failures(state, step)["memory"],
    )


def _bindings(step: PlannedStep) -> dict[str, tuple[str, str]]:
    return {name: producer_of(binding) for name, binding in step.inputs.items()}


def _backoff(policy: Policy, number: int) -> timedelta:
    """The wait before an attempt: none before the first, `backoff_seconds` before the second, then doubled each time."""
    if number == 1:
        return timedelta()
    doubled: float = policy.backoff_seconds * 2.0 ** min(number - 2, _DOUBLINGS)
    return timedelta(seconds=min(policy.backoff_limit_seconds, doubled))


def _lost(state: JobState, job: Accepted, results: Results) -> tuple[str, StepFault] | None:
    """The first step, in the plan's order, that can no longer be completed, and why."""
    for step in job.plan:
        if step.name in results:
            continue
        for producer, output in map(producer_of, step.inputs.values()):
            result = results.get(producer)
            if result and output not in result.outputs:
                message = f"the step was completed without its output {output!r}, which {step.name} reads"
                return producer, StepFault(cause="infrastructure", message=message)
        fault = _latest_fault(state, step)
        if fault and _failures(state, step)[_cause(fault)] > _retries(job.policy, _cause(fault)):
            return step.name, fault
    return None


def _latest_fault(state: JobState, step: PlannedStep) -> StepFault | None:
    if step.name not in state.attempts:
        return None
    attempt = state.attempts[step.name].get(state.latest(step.name))
    return attempt.fault if attempt else None


def _failures(state: JobState, step: PlannedStep) -> Counter[str]:
    """Number of ended attempts for each cause."""
    attempts: list[Attempt] = [attempt for attempt in state.attempts.get(step.name, {}).values() if attempt.asked]
    return Counter(_cause(attempt.fault) for attempt in attempts if attempt.fault)


def _cause(fault: StepFault) -> str:
    return fault.cause if fault.cause in CAUSES else "infrastructure"


def _retries(policy: Policy, cause: str) -> int:
    return {
        "infrastructure": policy.infrastructure_retries, "memory": policy.memory_retries, "user": policy.user_retries
    }[cause]  # fmt: skip


def _stop_one(state: JobState, job: Accepted, reason: str) -> StepCancelRequested | None:
    """Close one open attempt; None if none is open."""
    steps = {step.name: step for step in job.plan}
    for name, number, attempt in state.asked_attempts():
        if attempt.open and name in steps:
            return _close(job, steps[name], number, reason)
    return None


def _close(job: Accepted, step: PlannedStep, number: int, reason: str) -> StepCancelRequested:
    return StepCancelRequested(job_id=job.request.job_id, step=step.name, attempt=number, kind=step.kind, reason=reason)


def _completed(state: JobState, job: Accepted) -> JobCompleted:
    """JobCompleted with the result of the register step, or of the last one if there are several."""
    registered = [state.result(step.name) for step in job.plan if step.kind == "register"]
    facts = registered[-1].facts if registered and registered[-1] else {}
    return JobCompleted(job_id=job.request.job_id, model=facts.get(MODEL_NAME), version=facts.get(MODEL_VERSION))


def _failed(job: Accepted, step: str | None, fault: StepFault) -> JobFailed:
    return JobFailed(job_id=job.request.job_id, step=step, fault=fitting_fault(fault))


def _cancelled(state: JobState, job: Accepted) -> JobCancelled:
    wish = state.cancel
    reason = (wish.reason or f"cancelled by {wish.requester}") if wish else ""
    return JobCancelled(job_id=job.request.job_id, reason=reason)


def _fault_of_deadline(deadline: datetime) -> StepFault:
    reason = Reason(
        field="deadline",
        value=deadline.isoformat(),
        message="the job had not ended by its deadline",
        remedy="send it again under a new id with a later deadline, or with less work",
    )
    return StepFault(cause="user", message=str(reason), reasons=(reason,))
