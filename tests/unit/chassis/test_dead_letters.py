"""What is set aside, what waits behind it, and when a partition stops: the pure decisions about dead letters."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.base import EventData
from schemas.envelope import Event, encode
from schemas.jobs import JobRejected
from schemas.progress import StepProgressed
from schemas.requests import JobCancelRequested, JobRequested
from schemas.topics import JOBS, REQUESTS
from services.chassis.kafka.publisher import outside_event
from services.chassis.kernel.aggregate import Ref
from services.chassis.kernel.consuming.isolation import BatchAttempt, Isolation
from services.chassis.kernel.deadletters.limit import WINDOW, DeadLetterLimit
from services.chassis.kernel.deadletters.listing import arranged
from services.chassis.kernel.deadletters.models import BlockedBy, DeadLetter, Fault
from services.chassis.kernel.deadletters.parking import Division, Opened, divide, key_name
from services.chassis.kernel.numbering import SequenceGap
from services.chassis.kernel.operations.handling import Queue
from services.chassis.kernel.records import Partition, Record, named, parse_record_id, record_id_of
from services.chassis.kernel.transaction.batch import RecordFailure, Records
from tests.toy import ToyDomain

DOMAIN = ToyDomain("toy", "job-")
HERE: Partition = (REQUESTS.name, 0)


@dataclass
class Lying:
    """A record."""

    offset: int
    key: bytes | None
    value: bytes | None = b"{}"
    headers: Any = ()
    topic: str = REQUESTS.name
    partition: int = 0
    timestamp: int = 0


def lying(offset: int, data: EventData, *, own: int | None = None, key: str | None = None) -> tuple[Record, Event]:
    source = DOMAIN.source if own else "outside"
    event = outside_event(source, data, correlation_id="job")._replace(sequence=own)
    value, headers = encode(event)
    return Lying(offset, (key or data.job_id).encode(), value, headers), event  # type: ignore[attr-defined]


def cancel(offset: int, job: str, **more: Any) -> Opened:
    return lying(offset, JobCancelRequested(job_id=job), **more)


def divided(opened: list[Opened], *failed: int, blocked: dict[str, int] | None = None) -> Division:
    faults = {(*HERE, offset): Fault("broken") for offset in failed}
    return divide(DOMAIN, opened, faults, {HERE: blocked or {}}, frozenset())


def kept(division: Division) -> list[int]:
    return [record.offset for record, _ in division.kept]


def parked(division: Division) -> dict[Any, Any]:
    return {row["offset"]: row["blocked_by"] for row in division.rows if row["state"] == "parked"}


def test_what_touches_the_same_aggregate_waits_and_what_touches_another_flows_on() -> None:
    division = divided([cancel(1, "job-a"), cancel(2, "job-b"), cancel(3, "job-a"), cancel(4, "job-b")], 1)
    assert (kept(division), parked(division)) == ([2, 4], {3: 1})


def test_records_before_the_failed_one_do_not_wait() -> None:
    assert kept(divided([cancel(1, "job-a"), cancel(2, "job-a")], 2)) == [1]


def test_what_an_earlier_transaction_set_aside_holds_up_as_well() -> None:
    assert parked(divided([cancel(7, "job-a"), cancel(8, "job-b")], blocked={"tally/job-a": 3})) == {7: 3}


def test_own_events_and_progress_are_never_parked() -> None:
    own = lying(2, JobRejected(job_id="job-a", reasons=()), own=1)
    progressed = StepProgressed(job_id="job-a", step="train", attempt=1, kind="train", done=1, of=2)
    division = divided([cancel(1, "job-a"), own, lying(3, progressed), cancel(4, "job-a")], 1)
    assert (kept(division), parked(division)) == ([2, 3], {4: 1})


def test_where_it_cannot_be_told_what_a_failed_record_touches_its_key_is_held_up() -> None:
    class Untold(ToyDomain):
        def touches(self, event: Event) -> tuple[Ref, ...]:
            if event.type == "JobRequested":
                raise KeyError("what is that?")
            return super().touches(event)

    domain = Untold("toy", "job-")
    opened = [lying(1, JobRequested(job_id="job-a", request={"job_id": "job-a"})), cancel(2, "job-a"), cancel(3, "job-b")]
    division = divide(domain, opened, {(*HERE, 1): Fault("broken")}, {}, frozenset())
    assert (kept(division), parked(division)) == ([3], {2: 1})


def test_what_was_discarded_is_left_out_and_holds_up_nothing() -> None:
    opened = [cancel(1, "job-a"), cancel(2, "job-a")]
    division = divide(DOMAIN, opened, {}, {}, frozenset({(*HERE, 1)}))
    assert (kept(division), division.rows, division.discarded) == ([2], [], 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["job-a", "job-b", "job-c"]), max_size=30), st.sets(st.integers(0, 29), max_size=4))
def test_per_aggregate_everything_before_the_first_failure_is_kept_and_everything_behind_it_waits(
    jobs: list[str], failing: set[int]
) -> None:
    division = divided([cancel(offset, job) for offset, job in enumerate(jobs)], *failing)
    firsts = {job: min((n for n in failing if n < len(jobs) and jobs[n] == job), default=len(jobs)) for job in jobs}
    assert kept(division) == [offset for offset, job in enumerate(jobs) if offset < firsts[job]]
    assert len(division.rows) + len(division.kept) == len(jobs)


def letter(offset: int, state: str, *names: str) -> BlockedBy:
    return BlockedBy(offset, state, frozenset(names), b"k", None)  # type: ignore[arg-type]


def waits(*letters: BlockedBy) -> dict[int, int]:
    """What each parked record waits for, where none of them can be applied."""
    queue, found = Queue(), {}
    for one in letters:
        if (behind := queue.waits_for(one)) is not None:
            found[one.offset] = behind
        queue.hold(one)
    return found


def test_a_parked_record_waits_for_the_first_that_holds_up_what_it_touches() -> None:
    rows = [letter(1, "failed", "a"), letter(2, "parked", "a", "b"), letter(3, "parked", "b"), letter(4, "parked", "c")]
    assert waits(*rows) == {2: 1, 3: 2}


def test_a_record_whose_key_is_held_up_waits_whatever_it_touches() -> None:
    assert waits(letter(1, "failed", "/k"), letter(2, "parked", "a")) == {2: 1}


@given(st.text(min_size=1, max_size=20), st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1))
def test_a_place_is_read_as_it_is_named(topic: str, partition: int, offset: int) -> None:
    if "\x00" not in topic:
        assert parse_record_id(named((topic, partition, offset))) == (topic, partition, offset)


@pytest.mark.parametrize(
    "said", ["", "jobs", "jobs:1", "jobs:-1:2", ":1:2", "jobs:1:x", f"jobs:{2**31}:1", f"jobs:1:{2**63}", "jobs:1:²"]
)
def test_what_is_no_place_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="topic:partition:offset"):
        parse_record_id(said)


def test_parked_records_are_shown_behind_the_first_of_their_row() -> None:
    def shown(offset: int, state: str, blocked_by: int | None = None) -> DeadLetter:
        known = dict.fromkeys(DeadLetter.model_fields)
        times = {"appended_at": datetime.now(UTC), "recorded_at": datetime.now(UTC)}
        return DeadLetter.model_validate({
            **known, **times, "topic": HERE[0], "partition": 0, "offset": offset, "state": state, "blocked_by": blocked_by,
            "error": "", "attempts": 1, "headers": (),
        })  # fmt: skip

    listed = arranged([shown(3, "parked", 2), shown(2, "parked", 1), shown(1, "failed"), shown(9, "parked", 8)])
    assert [(one.offset, [behind.offset for behind in one.parked]) for one in listed] == [(1, [2, 3]), (9, [])]


@pytest.mark.parametrize(
    ("failed", "offset", "stops"),
    [
        ([], 5, False),
        (range(91, 99), 100, False),  # offset 99 was well
        (range(91, 100), 100, True),
        (range(92, 100), 100, False),
        (range(0, 100, 5), 100, True),  # every fifth
        (range(0, 100, 6), 100, False),
        (range(0, 100, 5), 100 + WINDOW, False),  # long ago
    ],
)
def test_a_partition_stops_at_ten_failures_in_a_row_or_a_fifth_of_the_last_hundred(
    failed: Any, offset: int, stops: bool
) -> None:
    assert bool(DeadLetterLimit(run=10, share=0.2).reached(HERE, list(failed), offset)) is stops


class Bench:
    """A handler that fails as it is told, and what became of each record."""

    def __init__(self, *, named: frozenset[int] = frozenset(), silent: frozenset[int] = frozenset()) -> None:
        self.named, self.silent = named, silent
        self.applied: list[int] = []
        self.dead: list[int] = []
        self.held: list[Partition] = []
        self.transactions = 0

    def run(self, records: Records) -> None:
        """As a consumer does, without its pauses."""
        isolation = Isolation(DOMAIN, records)
        while attempt := isolation.next():
            try:
                self.apply(attempt)
            except Exception as error:
                if stopped := isolation.failed(attempt, error):
                    self.held.append(stopped.partition)
            else:
                isolation.applied(set())

    def apply(self, attempt: BatchAttempt) -> None:
        self.transactions += 1
        records = [
            record for group in attempt.records.values() for record in group if record_id_of(record) not in attempt.failed
        ]
        for record in records:
            if record.offset in self.named:
                raise RecordFailure(record, ValueError("named"))
        if self.silent & {record.offset for record in records}:
            raise ValueError("somewhere")
        self.applied += [record.offset for record in records]
        self.dead += [offset for *_, offset in attempt.failed]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 60), st.sets(st.integers(0, 59), max_size=3), st.sets(st.integers(0, 59), max_size=3))
def test_exactly_the_records_that_fail_are_set_aside_and_the_order_is_kept(
    count: int, named: set[int], silent: set[int]
) -> None:
    bench = Bench(named=frozenset(named), silent=frozenset(silent))
    bench.run({HERE: [cancel(offset, "job-a")[0] for offset in range(count)]})
    failing = {offset for offset in named | silent if offset < count}
    assert bench.applied == [offset for offset in range(count) if offset not in failing]
    assert bench.dead == sorted(failing)


def test_one_record_that_the_database_refuses_is_found_in_few_transactions() -> None:
    bench = Bench(silent=frozenset({371}))
    bench.run({HERE: [cancel(offset, "job-a")[0] for offset in range(512)]})
    assert bench.dead == [371]
    assert bench.transactions <= 2 * 9 + 4


def test_an_own_event_is_never_set_aside_and_stops_its_partition_alone() -> None:
    of_jobs = [cancel(0, "job-a")[0], lying(1, JobRejected(job_id="job-a", reasons=()), own=1)[0], cancel(2, "job-a")[0]]
    for record in of_jobs:
        record.topic = JOBS.name
    other = Lying(1000, b"job-b", partition=1)
    bench = Bench(named=frozenset({1}))
    bench.run({(JOBS.name, 0): of_jobs, (REQUESTS.name, 1): [other]})
    assert (bench.applied, bench.dead, bench.held) == ([0, 1000], [], [(JOBS.name, 0)])


def test_a_database_older_than_the_log_stops_the_partition() -> None:
    class Old(Bench):
        def apply(self, attempt: BatchAttempt) -> None:
            for group in attempt.records.values():
                for record in group:
                    raise RecordFailure(record, SequenceGap("number 3 after 1"))

    bench = Old()
    bench.run({HERE: [cancel(0, "job-a")[0]]})
    assert (bench.dead, bench.held) == ([], [HERE])


def test_what_fails_once_and_then_works_is_no_dead_letter() -> None:
    class Moody(Bench):
        def apply(self, attempt: BatchAttempt) -> None:
            if self.transactions >= 2:
                self.named = frozenset()
            super().apply(attempt)

    bench = Moody(named=frozenset({1}))
    bench.run({HERE: [cancel(offset, "job-a")[0] for offset in range(3)]})
    assert (bench.applied, bench.dead) == ([0, 1, 2], [])


def test_a_fault_of_the_surroundings_is_no_poison() -> None:
    class Away(Bench):
        def apply(self, attempt: BatchAttempt) -> None:
            raise ConnectionResetError("database away")

    with pytest.raises(ConnectionResetError):
        Away().run({HERE: [cancel(0, "job-a")[0]]})


@given(st.binary(max_size=600), st.binary(max_size=600))
def test_the_name_of_a_key_is_short_text_and_another_for_another_key(one: bytes, other: bytes) -> None:
    names = [name for key in (one, other) for name in key_name(Lying(0, key))]
    assert (names[0] == names[1]) == (one == other) or b"\\" in one + other
    for name in names:
        assert "\x00" not in name
        assert len(name.encode()) < 1200
