"""What must hold in every run: checked against the log, the databases and the one checker of histories."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from datetime import datetime
from typing import TYPE_CHECKING, Any

from schemas.discards import RecordDiscarded
from schemas.envelope import Event, Unreadable
from schemas.jobs import (
    JobAccepted,
    JobCancelled,
    JobCompleted,
    JobControlled,
    JobFailed,
    JobRejected,
    StepCancelled,
    StepCompleted,
    StepFailed,
    StepRequested,
)
from schemas.models import ModelRegistered
from schemas.requests import JobRequested
from schemas.steps import EXECUTOR_OF
from schemas.topics import DISCARDS, EVENT_TYPES
from services.chassis.kernel.aggregate import AggregateType, Decision, Ref, States
from services.chassis.kernel.records import Record, RecordId, event_in, named, record_id_of
from services.chassis.kernel.transaction.inbox import Sightings
from services.chassis.kernel.transaction.writing import row_columns
from services.chassis.replay.memory import MemoryFold
from services.chassis.replay.projection import Folding
from services.orchestrator.domain.job import JOB
from services.orchestrator.domain.state import JobState
from tests.faults.history import Fact, check
from tests.simulation.database import Values, same_json

if TYPE_CHECKING:
    from tests.simulation.service import Service

ENDS = (JobCompleted, JobFailed, JobCancelled, JobRejected)
OUTCOMES = (StepCompleted, StepFailed, StepCancelled)


class Broken(AssertionError):
    """A promise does not hold."""


class Trapped(Folding):
    """A domain whose `decide` fails, which reveals a replay that decides again."""

    def decide(self, ref: Ref, states: States, now: datetime) -> Decision | None:
        raise Broken(f"decide was called for {ref.aggregate} {ref.key} in a replay")


def read(records: Iterable[Record]) -> Iterator[tuple[Record, Event]]:
    """Return every readable record with its event."""
    for record in records:
        try:
            event = event_in(record, EVENT_TYPES.keys())
        except Unreadable:
            continue
        assert isinstance(event, Event)
        yield record, event


def differences(
    aggregates: Mapping[str, AggregateType],
    live: Mapping[str, Mapping[Any, Values]],
    replayed: Mapping[str, Mapping[Any, Values]],
) -> list[str]:
    """Return the rows and columns that differ, in words."""
    found = []
    for name in sorted(aggregates):
        one, other = live.get(name, {}), replayed.get(name, {})
        for key in sorted(one.keys() | other.keys()):
            mine, its = one.get(key), other.get(key)
            if mine is None or its is None:
                if not untouched(mine or its or {}):
                    found.append(f"{name} {key[0]} is only in the {'replay' if mine is None else 'live rows'}")
                continue
            for column in sorted(mine.keys() | its.keys()):
                left, right = mine.get(column), its.get(column)
                if left != right and not (column in ("state", "offsets") and same_json(left, right)):
                    found.append(
                        f"{name} {key[0]}: {column} is {shortened(left)} live and {shortened(right)} in the replay"
                    )
    return found


def untouched(row: Values) -> bool:
    """Return whether nothing was ever folded into the row: a worker locked it and decided nothing."""
    return row["created_at"] is None


def shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}…"


def replay_differences(service: "Service", interleaved: Iterable[Record]) -> list[str]:
    """Compare the live rows with a fold in memory of the whole log, in the given order, without discarded records."""
    fold = MemoryFold(Folding(Trapped(service.domain)), given_up(service))
    for record in interleaved:
        fold.feed(record)
    fold.finish()
    if fold.stopped:
        return [f"{ref.aggregate} {ref.key} stopped at {why}" for ref, why in fold.stopped.items()]
    replayed: dict[str, dict[Any, Values]] = defaultdict(dict)
    for aggregate, columns in row_columns(service.domain, fold.rows):
        names = [name for name in columns if name != "key"]
        for key, *values in zip(columns["key"], *(columns[name] for name in names), strict=True):
            replayed[aggregate.name][key,] = dict(zip(names, values, strict=True))
    return differences(service.domain.aggregates, service.database.tables, replayed)


def log_faults(partitions: Mapping[Any, list[Any]]) -> list[str]:
    """Return the faults of the log alone: numbers, identities, doubled outcomes and versions."""
    found: list[str] = []
    seen: dict[str, bytes] = {}
    numbers: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    last: Counter[tuple[Any, ...]] = Counter()
    ends, outcomes = Counter[str](), Counter[tuple[str, str, int]]()
    made, versions, asked = Counter[tuple[str, str]](), Counter[tuple[str, str]](), Counter[tuple[str, str, int]]()
    for partition in sorted(partitions):
        for record, event in read(partitions[partition]):
            if event.sequence is None:  # outsiders may reuse ids
                continue
            if event.id in seen:
                if seen[event.id] != record.value:
                    found.append(f"id {event.id} names two contents")
                continue
            seen[event.id] = record.value or b""
            scope = (record.topic, event.source, event.subject)
            if event.sequence in numbers[scope] or event.sequence < last[*scope, partition]:
                found.append(
                    f"{event.type} of {event.source} {event.subject} has number {event.sequence} after {last[*scope, partition]}"
                )
            numbers[scope].add(event.sequence)
            last[*scope, partition] = event.sequence
            match event.data:
                case JobCompleted() | JobFailed() | JobCancelled() | JobRejected() as data:
                    ends[data.job_id] += 1
                case JobControlled(control="retry") as data:
                    ends[data.job_id] -= 1
                case StepCompleted() | StepFailed() | StepCancelled() as data:
                    outcomes[data.job_id, data.step, data.attempt] += 1
                case StepRequested() as data:
                    asked[data.job_id, data.step, data.attempt] += 1
                case ModelRegistered() as data:
                    made[data.lineage.job_id, data.lineage.step] += 1
                    versions[data.model, data.version] += 1
    found += [
        f"{source} {subject} has numbers {sorted(given)}"
        for (_, source, subject), given in numbers.items()
        if given != set(range(1, len(given) + 1))
    ]
    for what, counted in (
        ("job {} ended", ends), ("attempt {} has an outcome", outcomes), ("attempt {} was requested", asked),
        ("step {} registered a version", made), ("version {} was given", versions),
    ):  # fmt: skip
        found += [f"{what.format(name)} {times} times" for name, times in counted.items() if times > 1]
    return found


def given_up(service: "Service") -> Set[RecordId]:
    """Return the records that the service has discarded, according to its database."""
    letters = service.database.rows("dead_letter")
    return {(str(key[0]), int(key[1]), int(key[2])) for key, row in letters.items() if row["state"] == "discarded"}


def discard_faults(service: "Service", partitions: Mapping[Any, list[Any]]) -> list[str]:
    """Compare the discarded records of the database with those of the log."""
    said = {
        (event.data.topic, event.data.partition, event.data.offset)
        for partition, records in partitions.items()
        if partition[0] == DISCARDS.name
        for _, event in read(records)
        if isinstance(event.data, RecordDiscarded) and event.data.service == service.name
    }
    return [
        f"{named(place)} was given up {'in the rows alone' if place not in said else 'on the log alone'}"
        for place in sorted(said ^ given_up(service))
    ]


def not_decided_on(orchestrator: "Service", partitions: Mapping[Any, list[Any]]) -> list[str]:
    """Return jobs whose row has another request than the one that was decided on, unless one of their records was
    discarded."""
    found = []
    left_out = given_up(orchestrator)
    records = [(record, event) for partition in sorted(partitions) for record, event in read(partitions[partition])]
    doubtful = {
        event.data.job_id
        for record, event in records
        if isinstance(event.data, JobRequested) and record_id_of(record) in left_out
    }
    for _, event in records:
        if isinstance(event.data, JobAccepted | JobRejected) and event.data.job_id not in doubtful:
            row = orchestrator.database.rows(JOB)[event.data.job_id,]
            wish = JobState.stored(row["state"]).wish
            if wish is None or wish.content != event.data.request_sha256:
                found.append(f"job {event.data.job_id} was decided on another request than the one that counts")
    return found


def to_apply(
    service: "Service", partitions: Mapping[Any, list[Any]], left_out: Set[RecordId]
) -> dict[str, list[tuple[str, int]]]:
    """Return the records of others that this service must apply, by id: for each aggregate that a record touches, its
    number in the order of the partition. A record that touches none has the order of its key."""
    places: dict[str, list[tuple[str, int]]] = {}
    numbers: Counter[str] = Counter()
    sightings = Sightings()
    for partition in sorted(partitions):
        if partition[0] not in service.topics:
            continue
        for record, event in read(partitions[partition]):
            if event.source == service.domain.source or record_id_of(record) in left_out:
                continue
            refs = service.domain.touches(event)
            if not refs or sightings.repeated(record, event):
                continue
            keys = [f"{record.topic}:{record.partition}/{ref.aggregate}/{ref.key}" for ref in refs]
            places[named(record_id_of(record))] = [(key, numbers[key]) for key in keys]
            numbers.update(keys)
    return places


def history_of(service: "Service", partitions: Mapping[Any, list[Any]]) -> list[Fact]:
    """Return the events that this service must apply and has applied: each once, in the order of its partition and
    aggregate, with one effect."""
    places = to_apply(service, partitions, given_up(service))
    facts = [
        Fact(kind, f"{one} of {key}", key, number)
        for one, keys in places.items()
        for key, number in keys
        for kind in ("sent", "acknowledged")
    ]
    for one in service.database.ledger:
        if one not in places:
            raise Broken(f"{service.name}: {one} is a producer's duplicate or was given up, and was applied")
        for key, number in places[one]:
            facts += [Fact("applied", f"{one} of {key}", key, number), Fact("effect", f"{one} of {key}", key, number)]
    return facts


def effects_of(partitions: Mapping[Any, list[Any]], left_out: Mapping[str, Set[RecordId]]) -> list[Fact]:
    """Return jobs and attempts from the requesters' view: each gets one answer, unless its request was discarded."""
    facts: list[Fact] = []
    asked: set[str] = set()
    answered: Counter[str] = Counter()
    known: set[str] = set()
    for partition in sorted(partitions):
        for record, event in read(partitions[partition]):
            data = event.data
            if isinstance(data, JobRequested) and record_id_of(record) not in left_out["orchestrator"]:
                asked.add(data.job_id)
            if isinstance(data, StepRequested) and record_id_of(record) not in left_out[EXECUTOR_OF[data.kind]]:
                asked.add(f"{data.job_id}/{data.step}/{data.attempt}")
            if event.sequence is not None and event.id in known:
                continue
            known.add(event.id)
            match data:
                case JobCompleted() | JobFailed() | JobCancelled() | JobRejected():
                    answered[data.job_id] += 1
                case JobControlled(control="retry"):
                    answered[data.job_id] -= 1
                case StepCompleted() | StepFailed() | StepCancelled():
                    answered[f"{data.job_id}/{data.step}/{data.attempt}"] += 1
    for name in sorted(asked):
        facts += [Fact("sent", name, name, 0), Fact("acknowledged", name, name, 0)]
        if answered[name]:
            facts.append(Fact("applied", name, name, 0))
        facts += [Fact("effect", name, name, 0)] * answered[name]
    return facts


def unanswered(facts: list[Fact]) -> str | None:
    """Return the checker's message about a history; None if it is correct or nothing was sent."""
    verdict = check(facts)
    return None if verdict.well or not facts else str(verdict)
