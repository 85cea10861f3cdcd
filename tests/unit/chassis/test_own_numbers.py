"""Own events are one history wherever they lie; a number that comes back with another id is somebody else's."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.tally.domain import Tally
from schemas.envelope import Event
from schemas.jobs import JobRejected
from schemas.reasons import Reason
from services.chassis.kernel.aggregate import Decision, Ref
from services.chassis.kernel.numbering import EarlyEvents, OtherWriter, SequenceGap
from services.chassis.kernel.records import Logged
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.folding import Incoming
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork
from services.chassis.replay.projection import Folding
from tests.toy import ToyDomain

REF = Ref("tally", "job-1")
NOW = datetime(2030, 1, 1, tzinfo=UTC)
DOMAIN = ToyDomain("toy", "job-")


def own_events(number: int, prefix: str = "own") -> list[Event]:
    ids = (f"{one:03}-{prefix}" for one in count(1))
    unit = UnitOfWork(DOMAIN, {REF: AggregateRow(Tally())}, NOW, lambda: next(ids))
    reasons = (Reason(field="x", message="x", remedy="x"),)
    return [
        unit.apply(Decision(REF, REF.key, JobRejected(job_id="job-1", reasons=reasons if one == 3 else ())))
        for one in range(number)
    ]


def lying(event: Event, partition: int = 0) -> Incoming:
    return Incoming(event, Logged(NOW, "jobs", partition, event.sequence or 0))


def a_replay(early: EarlyEvents | None = None) -> UnitOfWork:
    return UnitOfWork(
        Folding(DOMAIN),
        {REF: AggregateRow(Tally())},
        NOW,
        lambda: "none",
        early=early if early is not None else EarlyEvents(),
    )


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.randoms())
def test_a_replay_merges_own_events_by_number_in_whatever_order_partitions_are_read(places: list[int], chance: Any) -> None:
    events = own_events(len(places))
    partitions: dict[int, list[Event]] = {}
    for event, number in zip(events, places, strict=True):
        partitions.setdefault(number, []).append(event)
    live = a_replay()
    for event, number in zip(events, places, strict=True):
        live.fold(lying(event, number))
    early = EarlyEvents()
    unit = a_replay(early)
    while left := [number for number, here in partitions.items() if here]:
        number = chance.choice(left)
        unit.fold(lying(partitions[number].pop(0), number))
    assert unit.rows == live.rows
    assert not early
    assert early.missing() is None


def test_what_is_missing_at_the_end_is_said_with_numbers_and_place() -> None:
    events, early = own_events(6), EarlyEvents()
    unit = a_replay(early)
    for event in (events[0], events[4], events[5]):
        unit.fold(lying(event, 7))
    assert unit.rows[REF].sequence == 1
    said = early.missing()
    assert said is not None
    assert "own events of tally job-1 are not on the log" in said
    assert "number 5 at jobs:7:5, but not numbers 2 to 4" in said


def test_a_live_service_waits_at_an_early_event() -> None:
    events = own_events(3)
    unit = UnitOfWork(DOMAIN, {REF: AggregateRow(Tally())}, NOW, lambda: "none")
    with pytest.raises(SequenceGap, match=r"has number 3 after 0: if the topic got more partitions.*drop its database"):
        unit.fold(lying(events[2]))
    for event in events:
        unit.fold(lying(event))
    assert unit.rows[REF].sequence == 3


def test_a_number_that_comes_back_with_another_id_is_another_writers() -> None:
    ours, theirs = own_events(5), own_events(5, "other")
    unit = a_replay()
    for event in ours:
        unit.fold(lying(event))
    for event in ours:
        unit.fold(lying(event))  # the relay sent them again
    before = replace(unit.rows[REF])
    for event in theirs:
        with pytest.raises(OtherWriter, match=rf"{event.id} at jobs:4:{event.sequence} has number.*partitions step-over"):
            unit.fold(lying(event, 4))
        with pytest.raises(OtherWriter):
            unit.fold_ahead(event)
    assert unit.rows[REF] == before


def test_two_early_events_with_one_number_are_told_apart() -> None:
    unit = a_replay()
    unit.fold(lying(own_events(3)[2]))
    unit.fold(lying(own_events(3)[2]))
    with pytest.raises(OtherWriter, match="003-own at jobs:0:3"):
        unit.fold(lying(own_events(3, "other")[2], 4))


def test_only_the_last_numbers_are_known_by_their_ids() -> None:
    unit = a_replay()
    for event in own_events(100):
        unit.fold(lying(event))
    assert len(unit.rows[REF].own_ids) == 64 * 8
    theirs = own_events(100, "x")
    unit.fold(lying(theirs[30]._replace(id="somebody")))
    with pytest.raises(OtherWriter):
        unit.fold(lying(theirs[36]._replace(id="somebody")))


def test_a_row_of_an_earlier_release_knows_no_ids_and_learns_them() -> None:
    events = own_events(4)
    unit = UnitOfWork(Folding(DOMAIN), {REF: AggregateRow(Tally(), sequence=2)}, NOW, lambda: "none", early=EarlyEvents())
    unit.fold(lying(events[1]._replace(id="any-other")))
    unit.fold(lying(events[2]))
    with pytest.raises(OtherWriter):
        unit.fold(lying(events[2]._replace(id="any-other")))
    unit.fold(lying(events[0]._replace(id="any-other")))
