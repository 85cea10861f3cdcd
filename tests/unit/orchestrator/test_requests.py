"""Which request of a job counts is the same in whatever order its records and the decision are read."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.envelope import Event
from schemas.jobs import JobRejected
from schemas.requests import JobRequested
from services.chassis.kafka.publisher import outside_event
from services.chassis.kernel.records import Logged
from services.orchestrator.domain import requests
from services.orchestrator.domain.content import content_digest
from services.orchestrator.domain.evolve import evolve
from services.orchestrator.domain.state import JobState
from tests.explored import examples

START = datetime(2030, 1, 1, tzinfo=UTC)
Lying = tuple[Event, Logged]


def asked(content: int, event_id: str, *, partition: int = 0, offset: int = 0, seconds: float = 0) -> Lying:
    data = JobRequested(job_id="job-1", request={"job_id": "job-1", "requester": f"r{content}"})
    event = outside_event("product", data, correlation_id="job-1")._replace(id=event_id, time=START)
    return event, Logged(START + timedelta(seconds=seconds), "requests", partition, offset)


def refused(lying: Lying, *, digest: bool = True) -> Lying:
    """The decision about a request, as this release writes it or as earlier ones did."""
    event, at = lying
    assert isinstance(event.data, JobRequested)
    content = content_digest(event.data.request, ()) if digest else None
    data = JobRejected(job_id="job-1", reasons=(), request_sha256=content)
    own = outside_event("neuroweaver/orchestrator", data, correlation_id="job-1")._replace(
        causation_id=event.id, sequence=1
    )
    return own._replace(id="own", time=START), Logged(at.appended_at, "jobs", 0, 0)


def folded(records: Iterable[Lying]) -> JobState:
    state = JobState()
    for event, at in records:
        state = evolve(state, event, at)
    return state


def test_before_a_decision_the_request_that_was_appended_first_counts() -> None:
    late, early = asked(1, "late", partition=0, seconds=5), asked(2, "early", partition=1, seconds=1)
    for order in ((late, early), (early, late)):
        state = folded(order)
        assert state.wish
        assert state.wish.event_id == "early"
        assert (state.opened_by, state.conflicts) == ("early", ("late",))


def test_a_tie_of_append_times_is_broken_by_the_place() -> None:
    one, other = asked(1, "one", partition=1), asked(2, "other", partition=0)
    assert folded((one, other)) == folded((other, one))
    assert folded((one, other)).opened_by == "other"


@pytest.mark.parametrize("digest", [True, False])
def test_what_was_decided_on_counts_whatever_turns_up_with_an_earlier_time(digest: bool) -> None:
    read_first, earlier = asked(1, "a", partition=0, seconds=5), asked(2, "b", partition=1, seconds=1)
    decision = refused(read_first, digest=digest)
    states = [
        folded(order)
        for order in (
            (read_first, decision, earlier), (earlier, read_first, decision), (decision, earlier, read_first),
            (earlier, decision, read_first),
        )
    ]  # fmt: skip
    assert all(state == states[0] for state in states)
    assert (states[0].opened_by, states[0].conflicts) == ("a", ("b",))
    assert states[0].wish
    assert states[0].wish.request["requester"] == "r1"


def test_one_event_id_for_two_requests_of_one_job_is_a_request_and_a_conflict() -> None:
    first, again = asked(1, "1", offset=0), asked(2, "1", offset=1, seconds=1)
    state = folded((first, refused(first), again))
    assert (state.wish and state.wish.request["requester"], state.conflicts) == ("r1", ("1",))
    assert folded((again, refused(first), first)) == state


REQUESTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=12
)
"""Content, event id, partition, seconds."""
BEYOND_THE_WHOLE = [(0, 0, 0, 0), (0, 1, 0, 0), (0, 2, 0, 0), (1, 0, 0, 0), (2, 0, 0, 0), (2, 0, 1, 0)]
"""The last is decided on, and one partition has the same where requests are no longer kept whole."""


@settings(max_examples=examples(300))
@given(REQUESTS, st.integers(0, 2), st.booleans(), st.booleans(), st.randoms())
@example(BEYOND_THE_WHOLE, 1, True, True, Random(0))
def test_any_order_gives_the_same_job(
    given_: Sequence[tuple[int, int, int, int]], partition: int, is_decided: bool, digest: bool, chance: Any
) -> None:
    """The first request of any partition may have been decided on: live services read partitions in any order."""
    log: dict[int, list[Lying]] = {}
    for content, event_id, number, seconds in sorted(given_, key=lambda item: item[3]):
        here = log.setdefault(number, [])
        here.append(asked(content, str(event_id), partition=number, offset=len(here), seconds=seconds))
    records = [lying for here in log.values() for lying in here]
    if is_decided and partition in log:
        records.append(refused(log[partition][0], digest=digest))
    mixed = [*records, *chance.sample(records, len(records) // 2)]
    chance.shuffle(mixed)
    state = folded(records)
    assert folded(mixed) == state
    assert JobState.stored(state.model_dump_json()) == state
    if is_decided and partition in log and digest:
        decided_on = log[partition][0][0]
        assert isinstance(decided_on.data, JobRequested)
        assert state.wish
        assert state.wish.request == decided_on.data.request


def test_a_flood_is_bounded_and_the_first_of_each_partition_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "KEPT", 5)
    flood = [asked(number, f"e{number}", partition=0, offset=number) for number in range(40)]
    late = asked(99, "late", partition=1, seconds=60)
    state = folded((*flood, late))
    assert len(state.others) == 5
    decision = refused(late)
    for order in ((*flood, late, decision), (decision, *reversed(flood), late), (late, decision, *flood)):
        state = folded(order)
        assert state.wish
        assert state.wish.request["requester"] == "r99"
        assert state.conflicts == ("e0", "e1", "e2", "e3", "e4")
        assert all(other.wish is None for other in state.others)


def test_a_row_of_an_earlier_release_is_read_and_its_request_counts() -> None:
    first = folded([asked(1, "a", seconds=5)])
    text = first.model_dump_json(exclude={"others": True, "decided_on": True, "wish": {"logged", "traceparent"}})
    event, at = asked(2, "b", partition=1, seconds=1)
    state = evolve(JobState.stored(text), event, at)
    assert (state.opened_by, state.conflicts) == ("a", ("b",))
