"""Defines a job's state in field groups that commute; the status is derived from all of them.

Rule 2 of docs/architecture.md: each group below has one kind of writer. Facts of outsiders, facts of executors and own decisions reach
a replay in another relative order than they reached the live service, so no group's fold reads another group.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, Field

from schemas.artifacts import ArtifactRef
from schemas.base import Frozen
from schemas.jobs import FeedbackRecorded, StepFault, StepResult
from schemas.reasons import Reason
from schemas.requests import JobRequest
from schemas.steps import PlannedStep, Policy
from schemas.usage import StepUsage
from services.chassis.kernel.aggregate import State
from services.chassis.kernel.records import Logged

Status = Literal["requested", "running", "paused", "cancelling", "completed", "failed", "cancelled", "rejected"]
ENDED: tuple[Status, ...] = ("completed", "failed", "cancelled", "rejected")


class Request(Frozen):
    """A JobRequested with all its data; a fact of topic `requests`."""

    at: AwareDatetime
    event_id: str
    job_id: str
    content: str = Field(description="Digest of the request; another digest under the same id is a conflict.")
    request: dict[str, Any] = Field(description="As sent, not validated.")
    faults: tuple[Reason, ...] = ()
    traceparent: str | None = None
    logged: Logged | None = Field(default=None, description="Its position in the log; null in a row of an earlier release.")


class Heard(Frozen):
    """The existence of a JobRequested and its log position."""

    logged: Logged
    event_id: str
    content: str
    wish: Request | None = Field(default=None, description="The whole request, while it may be the one that counts.")


class DecidedOn(Frozen):
    """The request that JobAccepted or JobRejected decided on."""

    content: str | None = Field(description="Digest of that request; null from releases that did not say it.")
    event_id: str | None = Field(description="The event that led to the decision.")


class CancelRequested(Frozen):
    """The earliest JobCancelRequested; a fact of topic `requests`."""

    at: AwareDatetime
    event_id: str
    requester: str
    reason: str
    logged: Logged | None = Field(default=None, description="Its position in the log; null in a row of an earlier release.")


class ControlRequest(Frozen):
    """A JobControlRequested; a fact of topic `requests`."""

    logged: Logged = Field(description="Its position in the log.")
    event_id: str
    job_id: str
    control: str
    priority: int | None = None
    requester: str
    reason: str


class ControlAnswer(Frozen):
    """The decision on such a request; an own event."""

    request_id: str
    control: str | None = Field(default=None, description="What was requested; null in a row of an earlier release.")
    refused: tuple[Reason, ...] = Field(default=(), description="Why it was refused; empty: it was not.")

    def is_on(self, request: ControlRequest) -> bool:
        """Whether this is the decision on a request: one under a used id that asks for something else is another one."""
        return self.request_id == request.event_id and self.control in (None, request.control)


class Accepted(Frozen):
    """JobAccepted, with all that later decisions read."""

    at: AwareDatetime
    request: JobRequest
    plan: tuple[PlannedStep, ...]
    policy: Policy


class Rejected(Frozen):
    """JobRejected."""

    at: AwareDatetime
    reasons: tuple[Reason, ...]


class JobOutcome(Frozen):
    """JobCompleted, JobFailed or JobCancelled."""

    at: AwareDatetime
    status: Literal["completed", "failed", "cancelled"]
    model: str | None = None
    version: str | None = None
    step: str | None = None
    fault: StepFault | None = None
    reason: str | None = None


class Requested(Frozen):
    """StepRequested; an own event."""

    at: AwareDatetime
    deadline: AwareDatetime
    not_before: AwareDatetime | None = None
    priority: int | None = Field(default=None, description="The attempt's priority; null in a row of an earlier release.")


class Closed(Frozen):
    """StepCancelRequested; an own event."""

    at: AwareDatetime
    reason: str


class Started(Frozen):
    """StepStarted; a fact of the executor."""

    at: AwareDatetime = Field(description="First start.")
    times: int = Field(description="How often a worker began or took over: the number of the last start.")
    worker: str = Field(description="The worker that began last.")
    cores: int = Field(default=0, description="Cores that the attempt counts there.")
    devices: int = Field(default=0, description="GPUs that it counts there.")


class Origin(Frozen):
    """The event that a fact comes from."""

    at: AwareDatetime
    event_id: str
    logged: Logged | None


class Outcome(Frozen):
    """StepCompleted, StepFailed or StepCancelled; a fact of the executor."""

    at: AwareDatetime
    kind: Literal["completed", "failed", "cancelled"]
    result: StepResult | None = None
    fault: StepFault | None = None
    usage: StepUsage | None = None
    event_id: str | None = None
    logged: Logged | None = None


class Attempt(Frozen):
    """One attempt of one step. A closing decision beats a later outcome, whichever of the two a replay meets first."""

    asked: Requested | None = None
    closed: Closed | None = None
    started: Started | None = None
    outcome: Outcome | None = None
    feedback: FeedbackRecorded | None = None
    feedback_origin: Origin | None = Field(default=None, description="The event of that decision.")

    @property
    def open(self) -> bool:
        """Whether it is requested, and neither closed nor ended."""
        return self.asked is not None and self.closed is None and self.outcome is None

    @property
    def stopping(self) -> bool:
        """Whether it is closed, but its executor has not reported yet that it stopped."""
        return self.asked is not None and self.closed is not None and self.outcome is None

    @property
    def result(self) -> StepResult | None:
        """Its result; None unless it was completed before it was closed."""
        return self.outcome.result if self.outcome and self.closed is None else None

    @property
    def fault(self) -> StepFault | None:
        """Why it failed; None if it is open, was completed, or was closed because the job ended."""
        if self.closed:
            return _overdue(self.asked) if self.closed.reason == "deadline" else None
        if self.outcome is None or self.outcome.kind == "completed":
            return None
        return self.outcome.fault or StepFault(
            cause="infrastructure", message="the executor stopped the attempt without a request"
        )


def _overdue(asked: Requested | None) -> StepFault:
    when = f" {asked.deadline.isoformat()}" if asked else ""
    return StepFault(cause="infrastructure", message=f"the attempt had no outcome by its deadline{when}")


class JobState(State):
    """A job. It has no separate projection: `evolve` is the projection."""

    wish: Request | None = Field(default=None, description="The request that counts.")
    others: tuple[Heard, ...] = Field(default=(), description="Further requests, in the order of the log; see `requests`.")
    conflicts: tuple[str, ...] = Field(default=(), description="Ids of those with other content.")
    cancel: CancelRequested | None = Field(default=None, description="The earliest request to cancel.")
    accepted: Accepted | None = Field(default=None, description="Own decision.")
    rejected: Rejected | None = Field(default=None, description="Own decision.")
    decided_on: DecidedOn | None = Field(default=None, description="Of either.")
    ending: JobOutcome | None = Field(default=None, description="Own decision; null again after a retry.")
    controls: dict[str, ControlRequest] = Field(default_factory=dict, description="The latest request of each kind.")
    answers: dict[str, ControlAnswer] = Field(default_factory=dict, description="Own decisions on them.")
    held: bool = Field(default=False, description="Own decision: the job is paused.")
    priority: int | None = Field(default=None, description="Own decision; null: the priority of the request.")
    checkpoints: dict[str, int] = Field(
        default_factory=dict, description="Own decision: attempts by step that are still to be asked for a checkpoint."
    )
    retried_at: AwareDatetime | None = Field(default=None, description="Own decision: the latest retry of the failed job.")
    spent: dict[str, int] = Field(default_factory=dict, description="Attempts at each step before that retry.")
    attempts: dict[str, dict[int, Attempt]] = Field(default_factory=dict, description="By step, then by number.")

    @property
    def status(self) -> Status | None:
        """The status, derived from the whole row; None if nobody requested the job (only facts about it are known)."""
        if self.ending:
            return self.ending.status
        if self.rejected:
            return "rejected"
        if self.accepted:
            return "cancelling" if self.cancel else "paused" if self.held else "running"
        return "requested" if self.wish else None

    @property
    def content(self) -> str | None:
        """Digest of the request that counts; if that request is not stored, of the one that was decided on."""
        known = self.wish or self.decided_on
        return known.content if known else None

    @property
    def sent(self) -> Mapping[str, Any]:
        """The request as sent; if that is not stored, as accepted."""
        if self.wish:
            return self.wish.request
        return self.accepted.request.model_dump(mode="json") if self.accepted else {}

    @property
    def requested_at(self) -> datetime | None:
        """When it was requested; if that is not stored, the time of the first stored decision."""
        known = self.wish or self.accepted or self.rejected or self.ending
        return known.at if known else None

    @property
    def ended_at(self) -> datetime | None:
        """When it ended or was rejected."""
        end = self.ending or self.rejected
        return end.at if end else None

    def latest(self, step: str) -> int:
        """Number of the latest requested attempt; 0 for none."""
        if step not in self.attempts:
            return 0
        return max((number for number, attempt in self.attempts[step].items() if attempt.asked), default=0)

    @property
    def current_priority(self) -> int:
        """The priority of the job's next attempts."""
        if self.priority is not None:
            return self.priority
        return self.accepted.request.priority if self.accepted else 0

    def failures(self, step: str) -> Iterator[StepFault]:
        """The faults of the ended attempts at a step that count as retries: those since the latest retry of the job."""
        for number, attempt in sorted(self.attempts.get(step, {}).items()):
            if attempt.asked and attempt.fault and number > self.spent.get(step, 0):
                yield attempt.fault

    def completed(self, step: str) -> bool:
        """Whether an attempt was completed before it was closed."""
        return self.result(step) is not None

    def result(self, step: str) -> StepResult | None:
        """The result of a step; None while it is not completed."""
        if step not in self.attempts:
            return None
        for _, attempt in sorted(self.attempts[step].items()):
            if attempt.result is not None:
                return attempt.result
        return None

    def failure_report(self, step: str) -> ArtifactRef | None:
        """The report of the latest attempt at a step that failed and left one."""
        faults = (attempt.fault for _, attempt in sorted(self.attempts.get(step, {}).items(), reverse=True))
        return next((fault.report for fault in faults if fault and fault.report), None)

    @property
    def results(self) -> Mapping[str, StepResult]:
        """The results of all completed steps."""
        found = ((step, self.result(step)) for step in self.attempts)
        return {step: result for step, result in found if result is not None}

    def asked_attempts(self) -> Iterator[tuple[str, int, Attempt]]:
        """Step, number and attempt of all requested attempts, in a fixed order."""
        for step, attempts in sorted(self.attempts.items()):
            for number, attempt in sorted(attempts.items()):
                if attempt.asked:
                    yield step, number, attempt
