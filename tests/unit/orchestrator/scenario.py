"""Given facts, when something happens, then events: a job's history told to the domain through the chassis' unit of work."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from schemas.artifacts import ArtifactRef
from schemas.base import EventData
from schemas.envelope import Event
from schemas.jobs import (
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepFault,
    StepRequested,
    StepResult,
    StepStarted,
)
from schemas.requests import JobCancelRequested, JobControlRequested, JobRequested
from schemas.steps import EXECUTOR_OF, OUTPUTS_OF, Policy
from schemas.usage import StepUsage
from services.chassis.kernel.records import Logged
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.folding import Incoming
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.orchestrator.domain.job import JobDomain, job_ref
from services.orchestrator.domain.state import JobState

START = datetime(2030, 1, 1, tzinfo=UTC)
POLICY = Policy(
    infrastructure_retries=2, memory_retries=1, user_retries=0, backoff_seconds=10, backoff_limit_seconds=15,
    step_timeout_seconds=1000, cancel_grace_seconds=60,
)  # fmt: skip
ARTIFACT = ArtifactRef(uri="/artifacts/x", sha256="0" * 64, size=1)
FACTS = {"register": {"model": "router", "version": "1.0.0"}}


def a_request(job_id: str = "job-1", **fields: Any) -> dict[str, Any]:
    """Return a request with only the required fields, which gives an sft pipeline."""
    return {
        "job_id": job_id, "requester": "relaycore", "base_model": "/models/base", "dataset": {"reference": "/data"},
        "register_as": "router", **fields,
    }  # fmt: skip


class JobScenario:
    """The events of one job, step by step. `log` has all decisions of the domain, and each call returns its own."""

    def __init__(self, job_id: str = "job-1", policy: Policy = POLICY) -> None:
        self.job_id, self.ref = job_id, job_ref(job_id)
        numbers = count(1)
        domain = JobDomain(policy)
        self.unit = UnitOfWork(domain, {self.ref: AggregateRow(JobState())}, START, lambda: f"own-{next(numbers)}")
        self.facts: list[Event] = []
        """The events of other services, in the order in which they were folded."""
        self.lying: dict[str, Logged] = {}
        """The position of each of them."""
        self._ids = (f"fact-{number}" for number in count(1))
        self._numbers: Counter[tuple[str, int]] = Counter()

    @property
    def state(self) -> JobState:
        """The present state of the job."""
        state = self.unit.rows[self.ref].state
        assert isinstance(state, JobState)
        return state

    @property
    def now(self) -> datetime:
        return self.unit.now

    def event(self, source: str, data: EventData, sequence: int | None = None, event_id: str | None = None) -> Event:
        """Return an event of another service with the present time."""
        return Event(
            id=event_id or next(self._ids), source=source, subject=self.job_id, time=self.now, data=data, sequence=sequence,
            correlation_id=self.job_id, causation_id=None, traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
        )  # fmt: skip

    def tell(self, event: Event) -> list[EventData]:
        """Fold an event and return the decisions on it."""
        before = len(self.unit.emitted)
        self.facts.append(event)
        self.lying[event.id] = Logged(self.now, "topic", 0, len(self.facts))
        self.unit.fold(Incoming(event, self.lying[event.id]))
        return [own.data for own in self.unit.emitted[before:]]

    def after(self, seconds: float) -> list[EventData]:
        """Let time pass, then run the ticker."""
        self.unit.now += timedelta(seconds=seconds)
        before = len(self.unit.emitted)
        self.unit.settle(self.ref)
        return [own.data for own in self.unit.emitted[before:]]

    def requested(self, event_id: str | None = None, **fields: Any) -> list[EventData]:
        request = a_request(self.job_id, **fields)
        return self.tell(self.event("relaycore", JobRequested(job_id=self.job_id, request=request), event_id=event_id))

    def cancel(self, reason: str = "", requester: str = "relaycore") -> list[EventData]:
        return self.tell(
            self.event("relaycore", JobCancelRequested(job_id=self.job_id, requester=requester, reason=reason))
        )

    def control(self, control: str, priority: int | None = None, event_id: str | None = None) -> list[EventData]:
        data = JobControlRequested(job_id=self.job_id, control=control, priority=priority, requester="relaycore")
        return self.tell(self.event("relaycore", data, event_id=event_id))

    def started(self, step: str, attempt: int = 1, **counted: int) -> list[EventData]:
        return self._executor(StepStarted, step, attempt, worker="host:1", **counted)

    def completed(
        self,
        step: str,
        attempt: int = 1,
        outputs: Mapping[str, ArtifactRef] | None = None,
        usage: StepUsage | None = None,
        **result: Any,
    ) -> list[EventData]:
        kind = self._kind(step)
        if outputs is None:
            outputs = dict.fromkeys(OUTPUTS_OF[kind], ARTIFACT)
        facts = {**FACTS.get(kind, {}), **result.pop("facts", {})}
        made = StepResult(outputs=dict(outputs), metrics={"loss": 0.5}, facts=facts, **result)
        return self._executor(StepCompleted, step, attempt, result=made, usage=usage)

    def failed(
        self, step: str, attempt: int = 1, cause: str = "infrastructure", usage: StepUsage | None = None
    ) -> list[EventData]:
        fault = StepFault(cause=cause, message="it broke", log_tail=("line 1", "line 2"))
        return self._executor(StepFailed, step, attempt, fault=fault, usage=usage)

    def stopped(self, step: str, attempt: int = 1) -> list[EventData]:
        return self._executor(StepCancelled, step, attempt)

    def run(self, *steps: str) -> list[EventData]:
        """Complete steps one after the other and return the decisions on the last."""
        decided: list[EventData] = []
        for step in steps:
            decided = self.completed(step)
        return decided

    def _kind(self, step: str) -> str:
        assert self.state.accepted
        return {planned.name: planned.kind for planned in self.state.accepted.plan}[step]

    def _executor(self, event: type[Any], step: str, attempt: int, **fields: Any) -> list[EventData]:
        kind = self._kind(step)
        data = event(job_id=self.job_id, step=step, attempt=attempt, kind=kind, **fields)
        self._numbers[step, attempt] += 1
        return self.tell(self.event(f"neuroweaver/{EXECUTOR_OF[kind]}", data, sequence=self._numbers[step, attempt]))


def names(decided: list[EventData]) -> list[str]:
    """Return decisions as short texts such as `StepRequested.v2 train/1`."""
    words = []
    for data in decided:
        step = f" {data.step}/{data.attempt}" if hasattr(data, "attempt") and hasattr(data, "step") else ""
        words.append(data.type_name() + step)
    return words


def one_request(decided: list[EventData]) -> StepRequested:
    """Return the only decision, which must be a StepRequested."""
    (data,) = decided
    assert isinstance(data, StepRequested)
    return data
