"""What an executor folds and decides about an attempt: given events, when an event, then decisions."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.base import EventData
from schemas.envelope import Event
from schemas.jobs import (
    FeedbackRecorded,
    JobCompleted,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepFault,
    StepResult,
    StepStarted,
)
from schemas.models import ModelPromoted
from services.chassis.executor.attempts import ATTEMPT, AttemptState, ExecutorDomain, attempt_ref, decision
from services.chassis.kernel.aggregate import Decision, Ref
from services.chassis.kernel.records import Logged
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.folding import Incoming
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from tests.steps import START, an_event, cancel, request

OWN = "neuroweaver/trainer"
DOMAIN = ExecutorDomain("trainer")
ASKED = request(priority=3)
REF = attempt_ref("job-1", "evaluate", 1)
NOW = datetime(2030, 1, 2, tzinfo=UTC)
ABOUT = {"job_id": "job-1", "step": "evaluate", "attempt": 1, "kind": "evaluate"}
STARTED = StepStarted(**ABOUT, worker="host:1")
COMPLETED = StepCompleted(**ABOUT, result=StepResult(metrics={"loss": 0.5}))
FAILED = StepFailed(**ABOUT, fault=StepFault(cause="memory", message="too large"))


def given_events(*events: Event) -> AttemptState:
    state = AttemptState()
    for event in events:
        state = DOMAIN.evolve(REF, state, event, None)  # type: ignore[assignment]
    return state


def decided(state: AttemptState) -> EventData | None:
    found = DOMAIN.decide(REF, {REF: state}, NOW)
    return found and found.data


def test_a_requested_attempt_waits_for_a_worker() -> None:
    event = an_event(ASKED)
    state = given_events(event)
    assert state.status == "queued"
    assert (state.requested, state.requested_at, state.opened_by) == (ASKED, START, event.id)
    assert (state.correlation_id, state.traceparent) == ("job-1", event.traceparent)
    assert decided(state) is None


def test_cancelling_an_attempt_that_no_worker_began_ends_it_at_once() -> None:
    state = given_events(an_event(ASKED), an_event(cancel(ASKED)))
    assert decided(state) == StepCancelled(**ABOUT)


def test_cancelling_an_attempt_that_was_begun_is_left_to_its_worker() -> None:
    state = given_events(an_event(ASKED), an_event(STARTED, OWN), an_event(cancel(ASKED)))
    assert state.status == "cancelling"
    assert decided(state) is None


def test_cancelling_an_attempt_that_ended_changes_nothing_about_its_end() -> None:
    state = given_events(an_event(ASKED), an_event(STARTED, OWN), an_event(COMPLETED, OWN), an_event(cancel(ASKED)))
    assert state.status == "completed"
    assert decided(state) is None


def test_a_cancel_for_an_attempt_that_was_never_requested_is_harmless() -> None:
    state = given_events(an_event(cancel(ASKED)))
    assert state.status is None
    assert decided(state) is None
    assert DOMAIN.aggregates[ATTEMPT].values(state)["job_id"] is None


def test_each_start_is_counted_and_the_first_keeps_its_time() -> None:
    state = given_events(
        an_event(ASKED),
        an_event(STARTED, OWN, seconds=5),
        an_event(STARTED.model_copy(update={"worker": "host:2"}), OWN, seconds=9),
    )
    assert (state.starts, state.worker, state.status) == (2, "host:2", "running")
    assert (state.started_at and state.started_at - START).total_seconds() == 5  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("event", "outcome"), [(COMPLETED, "completed"), (FAILED, "failed"), (StepCancelled(**ABOUT), "cancelled")]
)
def test_an_outcome_is_kept_with_its_data_and_time(event: EventData, outcome: str) -> None:
    state = given_events(an_event(ASKED), an_event(event, OWN, seconds=7))
    assert (state.status, state.outcome) == (outcome, outcome)
    assert (state.ended_at and state.ended_at - START).total_seconds() == 7  # type: ignore[union-attr]
    assert state.result == getattr(event, "result", None)
    assert state.fault == getattr(event, "fault", None)


def test_kinds_of_other_services_touch_nothing() -> None:
    label = request(step="label", kind="label")
    assert DOMAIN.touches(an_event(label)) == ()
    assert DOMAIN.touches(an_event(cancel(label))) == ()
    assert ExecutorDomain("feedback").touches(an_event(label)) == (attempt_ref("job-1", "label", 1),)


def test_outcomes_that_another_service_claims_touch_nothing() -> None:
    assert DOMAIN.touches(an_event(COMPLETED, "neuroweaver/feedback")) == ()
    assert DOMAIN.touches(an_event(COMPLETED, OWN)) == (REF,)


def test_own_events_keep_their_number_although_the_kind_has_moved_to_another_service() -> None:
    moved = StepStarted(**{**ABOUT, "kind": "label"}, worker="host:1")
    event = an_event(moved, OWN, sequence=1)
    assert DOMAIN.touches(event) == (REF,)
    unit = UnitOfWork(DOMAIN, {REF: AggregateRow(AttemptState())}, NOW, lambda: "id")
    unit.fold(Incoming(event, Logged(event.time, "jobs", 0, 0)))
    assert unit.rows[REF].sequence == 1


def test_extra_own_events_are_numbered_by_the_attempt_and_change_no_column() -> None:
    feedback = FeedbackRecorded(
        **{**ABOUT, "kind": "label"}, judge="rules", candidates=4, comparisons=2, pairs=1, ties=1, invalid=0,
        agreement=None, position_consistency=None, longer_preferred=None,
    )  # fmt: skip
    domain = ExecutorDomain("feedback")
    event = an_event(feedback, "neuroweaver/feedback")
    assert "FeedbackRecorded" in domain.handles
    assert domain.owner(event) == REF
    assert domain.evolve(REF, AttemptState(), event, None) == AttemptState()


def test_events_that_are_no_attempts_touch_nothing_and_have_no_owner_here() -> None:
    event = an_event(JobCompleted(job_id="job-1", model=None, version=None))
    assert DOMAIN.touches(event) == ()
    with pytest.raises(TypeError, match="JobCompleted"):
        DOMAIN.owner(event)


def test_a_service_with_aggregates_of_its_own_must_evolve_them_itself() -> None:
    promoted = an_event(ModelPromoted(model="m", alias="a", version="1.0.0", previous=None))
    with pytest.raises(TypeError, match="model m"):
        DOMAIN.evolve(Ref("model", "m"), object(), promoted, None)


def test_query_columns_follow_from_the_state() -> None:
    values = DOMAIN.aggregates[ATTEMPT].values(given_events(an_event(ASKED)))
    assert values == {
        "job_id": "job-1", "step": "evaluate", "attempt": 1, "kind": "evaluate", "status": "queued", "priority": 3,
        "requested_at": START, "not_before": None,
    }  # fmt: skip
    assert set(values) == set(DOMAIN.aggregates[ATTEMPT].columns)


def test_a_state_survives_the_database_whole() -> None:
    state = given_events(an_event(ASKED), an_event(STARTED, OWN), an_event(COMPLETED, OWN))
    assert AttemptState.model_validate_json(state.model_dump_json()) == state


def test_a_decision_names_the_attempt_as_owner_and_subject() -> None:
    assert decision(ASKED, StepStarted, worker="host:1") == Decision(REF, "job-1/evaluate/1", STARTED)


FACTS = [an_event(ASKED, seconds=1), an_event(cancel(ASKED), seconds=4)]
OWNS = [an_event(STARTED, OWN, seconds=2), an_event(STARTED, OWN, seconds=3), an_event(FAILED, OWN, seconds=5)]


def test_facts_of_the_orchestrator_commute_with_each_other() -> None:
    assert len({given_events(*order).model_dump_json() for order in permutations(FACTS)}) == 1


@given(st.lists(st.booleans(), min_size=len(FACTS) + len(OWNS), max_size=len(FACTS) + len(OWNS)), st.permutations(FACTS))
def test_any_interleaving_of_facts_with_own_events_gives_the_same_state(
    picks: Sequence[bool], facts: Sequence[Event]
) -> None:
    """Own events keep their order, as their numbers ensure; facts may come between them anywhere and in any order."""
    facts, owns, merged = list(facts), list(OWNS), []
    for pick in picks:
        source = facts if (pick and facts) or not owns else owns
        merged.append(source.pop(0))
    assert given_events(*merged) == given_events(*FACTS, *OWNS)
