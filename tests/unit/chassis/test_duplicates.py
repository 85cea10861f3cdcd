"""A producer's duplicate is told by the log alone: partition, identity and append times."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.envelope import Event, encode
from schemas.requests import JobCancelRequested, JobRequested
from services.chassis.kafka.publisher import outside_event
from services.chassis.kernel.statements import INBOX_WINDOW
from services.chassis.kernel.transaction.inbox import Sightings, identity
from tests.log import HeldRecord

START = datetime(2030, 1, 1, tzinfo=UTC)
DAYS = INBOX_WINDOW.days


def lying(event: Event, offset: int, days: float = 0, partition: int = 0) -> tuple[HeldRecord, Event]:
    value, headers = encode(event)
    at = int((START + timedelta(days=days)).timestamp() * 1000)
    return HeldRecord("requests", partition, offset, at, None, value, headers), event


def a_request(event_id: str = "1", job_id: str = "job-1", **fields: Any) -> Event:
    event = outside_event(
        "counter", JobRequested(job_id=job_id, request={"job_id": job_id, **fields}), correlation_id=job_id
    )
    return event._replace(id=event_id, time=START)


def test_the_same_event_behind_itself_on_one_partition_is_a_duplicate() -> None:
    sightings, event = Sightings(), a_request()
    assert [sightings.repeated(*lying(event, offset)) for offset in range(3)] == [False, True, True]


def test_what_lies_on_another_partition_is_no_duplicate() -> None:
    sightings, event = Sightings(), a_request()
    assert [sightings.repeated(*lying(event, 0, partition=number)) for number in range(2)] == [False, False]


def test_an_id_that_is_used_again_for_another_job_type_or_content_is_another_event() -> None:
    sightings = Sightings()
    cancel = outside_event("counter", JobCancelRequested(job_id="job-1"), correlation_id="job-1")
    events = [a_request(), a_request(job_id="job-2"), a_request(priority=1), cancel._replace(id="1")]
    assert [sightings.repeated(*lying(event, offset)) for offset, event in enumerate(events)] == [False] * 4
    assert len({identity(*lying(event, 0)) for event in events}) == 4


def test_the_window_begins_at_the_record_that_counts_and_begins_anew_behind_it() -> None:
    sightings, event = Sightings(), a_request()
    sent = [0, DAYS, DAYS + 0.1, 2 * DAYS, 2 * DAYS + 0.1, 2 * DAYS + 0.2]
    found = [sightings.repeated(*lying(event, offset, days)) for offset, days in enumerate(sent)]
    assert found == [False, True, False, True, True, False]


def test_a_record_that_is_handled_again_is_no_duplicate_of_itself() -> None:
    sightings, event = Sightings(), a_request()
    assert [sightings.repeated(*lying(event, 7)) for _ in range(2)] == [False, False]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 80)), max_size=20), st.randoms())
def test_how_partitions_are_interleaved_makes_no_difference(sent: list[tuple[int, int]], chance: Any) -> None:
    event = a_request()
    partitions: dict[int, list[tuple[HeldRecord, Event]]] = {}
    for number, days in sorted(sent, key=lambda item: item[1]):
        here = partitions.setdefault(number, [])
        here.append(lying(event, len(here), days, number))

    def told(order: list[int]) -> dict[tuple[int, int], bool]:
        sightings, left = Sightings(), {number: list(here) for number, here in partitions.items()}
        found = {}
        for number in order:
            record, one = left[number].pop(0)
            found[number, record.offset] = sightings.repeated(record, one)
        return found

    order = [number for number, here in partitions.items() for _ in here]
    mixed = list(order)
    chance.shuffle(mixed)
    assert told(order) == told(mixed)
