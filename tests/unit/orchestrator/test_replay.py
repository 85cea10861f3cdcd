"""Live state and replayed state are equal: rules 1 and 2 of docs/architecture.md, over random histories."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.envelope import Event, decode, encode
from schemas.requests import JobControlRequested, JobRequested
from schemas.topics import JOBS, REQUESTS, TOPIC_OF
from services.chassis.kernel.records import Logged
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.folding import Incoming
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.orchestrator.domain import evolve as folding
from services.orchestrator.domain.decide import due
from services.orchestrator.domain.job import JobDomain
from services.orchestrator.domain.state import JobState
from tests.explored import examples
from tests.unit.orchestrator.scenario import POLICY, JobScenario, a_request

SMALL: list[dict[str, Any]] = [
    {"name": "prepare", "kind": "prepare"},
    {"name": "left", "kind": "evaluate", "inputs": {"dataset": "prepare.dataset"}},
    {"name": "train", "kind": "train", "method": "sft", "inputs": {"dataset": "prepare.dataset"}},
    {"name": "register", "kind": "register", "needs": ["left"], "inputs": {"adapter": "train.adapter"}},
]
MOVES = (
    "again", "conflict", "cancel", "wait", "wait long", "wait long", "start", "complete", "complete", "complete", "fail",
    "lose", "memory", "stop", "pause", "resume", "retry", "retry", "priority", "late retry", "checkpoint",
)  # fmt: skip


class RandomScenario:
    """A random history on a log: facts arrive late, executors answer what they were asked, in any order and also too late."""

    def __init__(self, moves: Sequence[tuple[str, int, int | None]], valid: bool) -> None:
        self.scenario = JobScenario()
        self.requests: list[Event] = []
        self.jobs: list[Event] = []
        self.relayed = 0
        self.request = a_request(pipeline=SMALL if valid else "magic", deadline="2030-01-01T12:00:00Z")
        for move, choice, relayed in [("again", 0, 0), *moves]:
            self._move(move, choice)
            self._relay(relayed)
        self._relay(None)

    def _move(self, move: str, choice: int) -> None:
        scenario = self.scenario
        asked = [(step, number) for step, number, _ in scenario.state.asked_attempts()]
        match move:
            case "again" | "conflict":
                request = self.request if move == "again" else {**self.request, "priority": choice}
                self._outside(scenario.event("relaycore", JobRequested(job_id=scenario.job_id, request=request)))
            case "cancel" if choice < 2:
                before = len(scenario.facts)
                scenario.cancel()
                self.requests += scenario.facts[before:]
            case "pause" | "resume" | "retry" | "priority" | "checkpoint":
                before = len(scenario.facts)
                scenario.control(move, choice if move == "priority" else None)
                self.requests += scenario.facts[before:]
            case "late retry":  # its time lies before those of requests that were read before it
                data = JobControlRequested(job_id=scenario.job_id, control="retry")
                event = scenario.event("relaycore", data)
                self._outside(event._replace(time=event.time - timedelta(seconds=5 * choice)))
            case "wait" | "wait long":
                scenario.after(7.0 if move == "wait" else 1000.0)
            case _ if asked:
                self._executor(move, *asked[choice % len(asked)])

    def _outside(self, event: Event) -> None:
        self.scenario.tell(event)
        self.requests.append(event)

    def _executor(self, move: str, step: str, number: int) -> None:
        """An executor says at most one outcome about an attempt, whatever the orchestrator decided meanwhile."""
        attempt = self.scenario.state.attempts[step][number]
        before = len(self.scenario.facts)
        if move == "start":
            self._relay_request(step, number)
            self.scenario.started(step, number)
        elif attempt.outcome is None:
            self._relay_request(step, number)
            match move:
                case "complete":
                    self.scenario.completed(step, number)
                case "fail" | "lose" | "memory":
                    cause = {"fail": "user", "lose": "infrastructure", "memory": "memory"}[move]
                    self.scenario.failed(step, number, cause=cause)
                case "stop":
                    self.scenario.stopped(step, number)
        self.jobs += self.scenario.facts[before:]

    def _relay_request(self, step: str, number: int) -> None:
        """An executor answers what it read; what was decided since may reach the log only behind its answer."""
        asked = [(e.type, getattr(e.data, "step", ""), getattr(e.data, "attempt", 0)) for e in self.scenario.unit.emitted]
        position = asked.index(("StepRequested.v2", step, number)) + 1
        if position > self.relayed:
            self.jobs += self.scenario.unit.emitted[self.relayed : position]
            self.relayed = position

    def _relay(self, count: int | None) -> None:
        """Own events reach the log behind facts that were folded after they were decided; None: all of them."""
        emitted = self.scenario.unit.emitted
        until = len(emitted) if count is None else min(len(emitted), self.relayed + count)
        self.jobs += emitted[self.relayed : until]
        self.relayed = until


HISTORIES = st.builds(
    RandomScenario,
    st.lists(
        st.tuples(st.sampled_from(MOVES), st.integers(0, 5), st.sampled_from((0, 0, 1, None))), min_size=8, max_size=50
    ),
    st.sampled_from([True] * 9 + [False]),
)


def interleaved(random_scenario: RandomScenario, order: Sequence[bool]) -> list[Event]:
    """Both topics as one sequence; each keeps its own order."""
    queues = {True: list(random_scenario.requests), False: list(random_scenario.jobs)}
    log = [queues[pick].pop(0) for pick in order if queues[pick]]
    return [*log, *queues[True], *queues[False]]


@settings(max_examples=examples(200))
@given(HISTORIES, st.lists(st.booleans(), max_size=120))
def test_a_replay_in_any_order_of_the_topics_gives_the_live_state(
    random_scenario: RandomScenario, order: list[bool]
) -> None:
    state = JobState()
    for event in interleaved(random_scenario, order):
        state = folding.evolve(state, event, random_scenario.scenario.lying.get(event.id))
    assert state == random_scenario.scenario.state


class NeverDecides(JobDomain):
    """A replay that decides anything is no replay."""

    def decide(self, ref: Any, states: Any, now: Any) -> None:
        raise AssertionError("decide was called in a replay")


@given(HISTORIES, st.lists(st.booleans(), max_size=120))
def test_a_replay_through_the_wire_never_decides_and_gives_the_live_rows(
    random_scenario: RandomScenario, order: list[bool]
) -> None:
    domain = NeverDecides(POLICY)
    unit = UnitOfWork(
        domain, {random_scenario.scenario.ref: AggregateRow(JobState())}, random_scenario.scenario.now, lambda: "none"
    )
    for offset, event in enumerate(interleaved(random_scenario, order)):
        value, headers = encode(event)
        read = decode(value, headers, domain.handles, event.time)
        assert isinstance(read, Event)
        incoming = Incoming(
            read, random_scenario.scenario.lying.get(event.id) or Logged(event.time, TOPIC_OF[event.type].name, 0, offset)
        )
        _fold_without_deciding(unit, incoming)
    row, live = unit.rows[random_scenario.scenario.ref], random_scenario.scenario.unit.rows[random_scenario.scenario.ref]
    assert (row.state, row.sequence, row.updated_at, row.created_at) == (
        live.state, live.sequence, live.updated_at, live.created_at,
    )  # fmt: skip


def _fold_without_deciding(unit: UnitOfWork, incoming: Incoming) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(unit, "settle", lambda ref, cause=None: None)
        unit.fold(incoming)


@settings(max_examples=examples(200))
@given(HISTORIES, st.integers(0, 200))
def test_any_cut_of_the_log_in_any_order_can_be_folded(random_scenario: RandomScenario, cut: int) -> None:
    log = [*random_scenario.jobs, *random_scenario.requests]
    state = JobState()
    for event in [*log[cut % (len(log) + 1) :], *reversed(log)]:
        state = folding.evolve(state, event, random_scenario.scenario.lying.get(event.id))
        assert state.status is None or state.status
        due(state)


@settings(max_examples=examples(200))
@given(HISTORIES)
def test_a_job_ends_once_and_after_each_retry_once_more_and_every_attempt_is_requested_once(
    random_scenario: RandomScenario,
) -> None:
    own = [event for event in random_scenario.jobs if event.source == "neuroweaver/orchestrator"]
    endings = [event for event in own if event.type in ("JobCompleted", "JobFailed", "JobCancelled", "JobRejected")]
    requests = [(e.data.step, e.data.attempt) for e in own if e.type == "StepRequested.v2"]  # type: ignore[attr-defined]
    retries = [e for e in own if e.type == "JobControlled" and e.data.control == "retry"]  # type: ignore[attr-defined]
    assert len(endings) <= 1 + len(retries)
    assert len(requests) == len(set(requests))
    assert [event.sequence for event in own] == list(range(1, len(own) + 1))
    rest = own[own.index(endings[-1]) + 1 :] if endings and endings[-1].type != "JobCancelled" else []
    assert {event.type for event in rest} <= {"JobControlRefused", "JobControlled", "StepRequested.v2", "StepCancelRequested",
                                              "StepPriorityChanged", "StepCheckpointRequested"}  # fmt: skip
    if not any(event.type == "JobControlled" for event in rest):
        assert {event.type for event in rest} <= {"JobControlRefused"}


@given(HISTORIES)
def test_a_job_whose_executors_are_silent_ends_by_its_deadline(random_scenario: RandomScenario) -> None:
    scenario = random_scenario.scenario
    for _ in range(10):
        scenario.after(timedelta(hours=2).total_seconds())
    assert scenario.state.status in ("completed", "failed", "cancelled", "rejected")
    assert due(scenario.state) is None
    assert not any(attempt.open for _, _, attempt in scenario.state.asked_attempts())


@given(HISTORIES)
def test_a_state_survives_its_json(random_scenario: RandomScenario) -> None:
    state = random_scenario.scenario.state
    assert JobState.model_validate_json(state.model_dump_json()) == state


def test_the_histories_reach_every_ending() -> None:
    """The properties above would be empty if random histories never got anywhere."""
    complete = [("complete", number, None) for number in range(6)]
    endings = {
        RandomScenario([*complete, *complete, *complete], True).scenario.state.status,
        RandomScenario([("fail", 0, 0)], True).scenario.state.status,
        RandomScenario([("fail", 0, 0), ("retry", 0, 0)], True).scenario.state.status,
        RandomScenario([("pause", 0, 0)], True).scenario.state.status,
        RandomScenario([("cancel", 0, 0), ("stop", 0, 0)], True).scenario.state.status,
        RandomScenario([], False).scenario.state.status,
    }
    assert endings == {"completed", "failed", "running", "paused", "cancelled", "rejected"}


def test_every_event_of_the_jobs_topics_is_handled() -> None:
    names = {event.type_name() for topic in (REQUESTS, JOBS) for event in topic.events}
    assert names <= JobDomain.handles
