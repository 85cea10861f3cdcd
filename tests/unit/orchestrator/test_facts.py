"""Facts of others about a job, of which one counts, and words that only the orchestrator can say."""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import permutations

import pytest

from schemas.base import EventData
from schemas.envelope import Event
from schemas.jobs import FeedbackRecorded, JobCancelled, JobCompleted, StepFailed, StepFault
from schemas.requests import JobCancelRequested
from schemas.steps import Policy
from services.chassis.kafka.publisher import outside_event
from services.chassis.kernel.records import Logged
from services.orchestrator.domain.evolve import evolve
from services.orchestrator.domain.job import SOURCE, JobDomain
from services.orchestrator.domain.state import JobState

START = datetime(2030, 1, 1, tzinfo=UTC)
Lying = tuple[Event, Logged]


def lying(data: EventData, partition: int) -> Lying:
    """With an id and a time that others have, too."""
    event = outside_event("somebody", data, correlation_id="job-1")._replace(id="1", time=START)
    return event, Logged(START, "topic", partition, 0)


def cancel(who: str, partition: int) -> Lying:
    return lying(JobCancelRequested(job_id="job-1", requester=who, reason=who), partition)


def feedback(judge: str, partition: int) -> Lying:
    said = FeedbackRecorded(
        job_id="job-1", step="label", attempt=1, kind="label", judge=judge, candidates=4, comparisons=2, pairs=1, ties=1, invalid=0,
        agreement=None, position_consistency=None, longer_preferred=None,
    )  # fmt: skip
    return lying(said, partition)


def failure(message: str, partition: int) -> Lying:
    fault = StepFault(cause="user", message=message)
    return lying(StepFailed(job_id="job-1", step="train", attempt=1, kind="train", fault=fault), partition)


def folded(records: Iterable[Lying]) -> JobState:
    state = JobState()
    for event, logged in records:
        state = evolve(state, event, logged)
    return state


@pytest.mark.parametrize("fact", [cancel, feedback, failure])
def test_facts_that_cannot_both_count_give_one_state_in_whatever_order_partitions_are_read(fact: object) -> None:
    assert callable(fact)
    records = [fact("a", 0), fact("b", 1), fact("c", 2)]
    states = [folded(order) for order in permutations([*records, records[0]])]
    assert all(state == states[0] for state in states)


@pytest.mark.parametrize(
    "said", [JobCancelled(job_id="job-1", reason="x"), JobCompleted(job_id="job-1", model="m", version="1")]
)
def test_a_decision_that_somebody_else_claims_concerns_no_job(said: EventData) -> None:
    domain = JobDomain(Policy())
    claimed = outside_event("somebody", said, correlation_id="job-1")
    assert domain.touches(claimed) == ()
    assert domain.touches(claimed._replace(source=SOURCE)) == (), "the orchestrator numbers what it decides"
    assert domain.touches(claimed._replace(source=SOURCE, sequence=1)) != ()
