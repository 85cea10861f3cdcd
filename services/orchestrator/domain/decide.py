"""Decides what follows from a job's state: one decision at a time; the caller repeats until there is none.

Level-triggered (rule 5 of docs/architecture.md): `wants` lists the decisions that the state requires, each with the time from which
it does. `decide` takes the first whose time has come, and `due` returns the time of the next, so the two cannot disagree.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

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
    StepCheckpointRequested,
    StepFault,
    StepNeed,
    StepPriorityChanged,
    StepRequested,
    StepResult,
)
from schemas.reasons import Reason
from schemas.results import MODEL_NAME, MODEL_VERSION
from schemas.steps import PlannedStep, Policy, need_name
from services.orchestrator.domain.controls import answer, pending
from services.orchestrator.domain.graph import ancestors, producer_of
from services.orchestrator.domain.spending import fault_of_budget, spent_at
from services.orchestrator.domain.starting import is_left_out, settled
from services.orchestrator.domain.state import Accepted, JobState, Request
from services.orchestrator.domain.validation import RejectedRequest, examine

IMMEDIATELY = datetime(1970, 1, 1, tzinfo=UTC)
Results = Mapping[str, StepResult]
"""Results of the completed steps, by name."""
PAUSE = "pause"
"""Why an attempt of a paused job is closed."""
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
    examined = examine(wish.request, wish.faults, now, defaults)
    if isinstance(examined, RejectedRequest):
        return JobRejected(job_id=wish.job_id, reasons=examined.reasons, request_sha256=wish.content)
    return JobAccepted(
        job_id=wish.job_id, request=examined.request, plan=examined.plan, policy=defaults, request_sha256=wish.content
    )


def wants(state: JobState) -> Iterator[Want]:
    """The decisions that an accepted, unfinished job requires, most urgent first."""
    job = state.accepted
    if job is None and state.rejected is None:
        return
    for request in pending(state):
        yield Want(IMMEDIATELY, partial(answer, state, request))
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
        if seconds := job.request.max_duration:
            spent = _fault_of_duration(seconds)
            at = (state.retried_at or job.at) + timedelta(seconds=seconds)
            yield Want(at, lambda now: _stop_one(state, job, "failing") or _failed(job, None, spent))
        if (budget := job.request.budget) is not None and (prices := job.policy.prices):
            exceeded = _user_fault(fault_of_budget(budget, prices))
            if over := spent_at(state, budget, prices):
                yield Want(over, lambda now: _stop_one(state, job, "failing") or _failed(job, None, exceeded))
        if state.held:
            if any(attempt.open for _, _, attempt in state.asked_attempts()):
                yield Want(IMMEDIATELY, lambda now: _paused(state, job))
            return
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
    """Request the first attempt when all needed steps are completed, the next when one ended; close it at its deadline.

    An attempt from before the job's retry has ended for good; one that was paused is followed by the next when it has stopped, or after
    the grace period.
    """
    number = state.latest(step.name)
    if number <= state.spent.get(step.name, 0):
        if all(need in results for need in step.needs):
            yield Want(IMMEDIATELY, lambda now: _request(state, job, step, number + 1, now))
        return
    attempt = state.attempts[step.name][number]
    if attempt.closed and attempt.closed.reason == PAUSE:
        grace = timedelta(seconds=job.policy.cancel_grace_seconds)
        at = attempt.closed.at + grace if attempt.stopping else IMMEDIATELY
        yield Want(at, lambda now: _request(state, job, step, number + 1, now))
    elif attempt.fault:
        yield Want(IMMEDIATELY, lambda now: _request(state, job, step, number + 1, now))
    elif attempt.open and attempt.asked:
        if state.checkpoints.get(step.name) == number:
            yield Want(IMMEDIATELY, lambda now: _checkpoint(job, step, number))
        if attempt.asked.priority not in (None, state.current_priority):
            yield Want(IMMEDIATELY, lambda now: _reprioritised(state, job, step, number))
        yield Want(attempt.asked.deadline, lambda now: _close(job, step, number, "deadline"))


def _request(state: JobState, job: Accepted, step: PlannedStep, number: int, now: datetime) -> StepRequested:
    wait = _wait(state, job, step.name)
    start = now + wait
    deadline = start + timedelta(seconds=job.policy.step_timeout_seconds)
    results = {name: state.result(name) for name in sorted(ancestors(job.plan, step.name))}
    lineage = {name: result for name, result in results.items() if result}
    plan = {planned.name: planned for planned in job.plan}
    return StepRequested(
        job_id=job.request.job_id,
        step=step.name,
        attempt=number,
        kind=step.kind,
        settings=settled(step.settings, lineage),
        inputs={
            name: lineage[producer].outputs[output]
            for name, (producer, output) in _bindings(step).items()
            if not is_left_out(plan[producer], output, lineage[producer])
        },
        results=lineage,
        requester=job.request.requester,
        priority=state.current_priority,
        not_before=start if wait else None,
        deadline=min(deadline, job.request.deadline) if job.request.deadline else deadline,
        memory_failures=_memory_failures(state, step),
        need=_need(step, lineage),
    )


def _need(step: PlannedStep, lineage: Results) -> StepNeed | None:
    """Return the largest estimate that earlier steps make of what the step needs; None if none makes one."""
    name = need_name(step.settings)
    found = [result.needs[name] for result in lineage.values() if name in result.needs]
    return max(found, key=lambda need: (need.device_bytes or 0, need.memory_bytes), default=None)


def _wait(state: JobState, job: Accepted, step: str) -> timedelta:
    """Return the wait before the next attempt at a step: one follows an attempt that failed, and none follows one that was paused."""
    latest = state.attempts.get(step, {}).get(state.latest(step))
    failed = latest is not None and latest.fault is not None
    return _backoff(job.policy, sum(1 for _ in state.failures(step))) if failed else timedelta()


def _bindings(step: PlannedStep) -> dict[str, tuple[str, str]]:
    return {name: producer_of(binding) for name, binding in step.inputs.items()}


def _backoff(policy: Policy, failures: int) -> timedelta:
    """The wait before an attempt: none before the first, `backoff_seconds` after the first failure, then doubled each time."""
    if not failures:
        return timedelta()
    doubled: float = policy.backoff_seconds * 2.0 ** min(failures - 1, _DOUBLINGS)
    return timedelta(seconds=min(policy.backoff_limit_seconds, doubled))


def _lost(state: JobState, job: Accepted, results: Results) -> tuple[str, StepFault] | None:
    """The first step, in the plan's order, that can no longer be completed, and why."""
    plan = {step.name: step for step in job.plan}
    for step in job.plan:
        if step.name in results:
            continue
        for producer, output in map(producer_of, step.inputs.values()):
            result = results.get(producer)
            if result and output not in result.outputs and not is_left_out(plan[producer], output, result):
                message = f"the step was completed without its output {output!r}, which {step.name} reads"
                return producer, StepFault(cause="infrastructure", message=message)
        fault = _latest_fault(state, step)
        if fault and _causes(state.failures(step.name))[_cause(fault)] > _retries(job.policy, _cause(fault)):
            return step.name, fault
    return None


def _latest_fault(state: JobState, step: PlannedStep) -> StepFault | None:
    if step.name not in state.attempts:
        return None
    number = state.latest(step.name)
    attempt = state.attempts[step.name].get(number)
    return attempt.fault if attempt and number > state.spent.get(step.name, 0) else None


def _causes(faults: Iterable[StepFault]) -> Counter[str]:
    """Number of faults for each cause."""
    return Counter(map(_cause, faults))


def _memory_failures(state: JobState, step: PlannedStep) -> int:
    """Number of all attempts at a step that ran out of memory, also before a retry of the job: the step stays as large as it is."""
    attempts = state.attempts.get(step.name, {}).values()
    return _causes(attempt.fault for attempt in attempts if attempt.asked and attempt.fault)["memory"]


def _cause(fault: StepFault) -> str:
    return fault.cause if fault.cause in CAUSES else "infrastructure"


def _retries(policy: Policy, cause: str) -> int:
    return {
        "infrastructure": policy.infrastructure_retries, "memory": policy.memory_retries, "hung": policy.hung_retries,
        "user": policy.user_retries,
    }[cause]  # fmt: skip


def _stop_one(state: JobState, job: Accepted, reason: str) -> StepCancelRequested | None:
    """Close one open attempt; None if none is open."""
    steps = {step.name: step for step in job.plan}
    for name, number, attempt in state.asked_attempts():
        if attempt.open and name in steps:
            return _close(job, steps[name], number, reason)
    return None


def _paused(state: JobState, job: Accepted) -> StepCancelRequested:
    """Close one open attempt of a paused job: it writes a checkpoint and stops."""
    closing = _stop_one(state, job, PAUSE)
    assert closing is not None
    return closing


def _checkpoint(job: Accepted, step: PlannedStep, number: int) -> StepCheckpointRequested:
    return StepCheckpointRequested(job_id=job.request.job_id, step=step.name, attempt=number, kind=step.kind)


def _reprioritised(state: JobState, job: Accepted, step: PlannedStep, number: int) -> StepPriorityChanged:
    return StepPriorityChanged(
        job_id=job.request.job_id, step=step.name, attempt=number, kind=step.kind, priority=state.current_priority
    )


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
    return _user_fault(reason)


def _fault_of_duration(seconds: float) -> StepFault:
    reason = Reason(
        field="max_duration",
        value=f"{seconds:g}",
        message=f"the job had not ended {seconds:g} s after it was accepted or retried",
        remedy="retry it, which continues it from its checkpoints for the same time; or send it with a larger one under a new id",
    )
    return _user_fault(reason)


def _user_fault(reason: Reason) -> StepFault:
    return StepFault(cause="user", message=str(reason), reasons=(reason,))
