"""The surroundings of a run: a clock, a log, and one database per service, all in memory and all ruled by the seed.

What is mirrored here is what the chassis does around the pure code, and only that: `Database` stands for the tables and for
one transaction on them (`services/chassis/batch.py`, `commands.py`, `relay.py`, `ticker.py`, `executor/work.py`). Everything pure
is the product's own: decoding, the unit of work, `evolve` and `decide`, the folding of a replay.
"""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from schemas.envelope import Event, Unhandled, decode, encode
from schemas.topics import PROGRESS, TOPIC_OF, aggregate_key
from services.chassis.aggregate import Domain, Ref
from services.chassis.deadletters.parking import is_own
from services.chassis.executor.attempts import ATTEMPT, AttemptState
from services.chassis.records import Partition, appended_at
from services.chassis.replay.projection import Folding
from services.chassis.unit import Incoming, Row, Unit
from tests.simulation.variants import SOUND, Variant

PARTITIONS = 2
_START = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class Clock:
    """Virtual time; it moves when the run says so."""

    now: datetime = _START

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


@dataclass
class Lying:
    """A record in the log."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Any
    read: dict[frozenset[str], Event | None] = field(default_factory=dict)
    """What readers made of it, by the types that they handle: bytes do not change, so it is decoded once for each."""


@dataclass
class Log:
    """Topics of two partitions each; what has a key stays in its partition, in order."""

    clock: Clock
    partitions: dict[Partition, list[Lying]] = field(default_factory=dict)

    def append(self, topic: str, key: bytes, value: bytes, headers: Any) -> None:
        """At the end of the key's partition."""
        partition = (topic, zlib.crc32(key) % PARTITIONS)
        records = self.partitions.setdefault(partition, [])
        at = round(self.clock.now.timestamp() * 1000)
        records.append(Lying(*partition, len(records), at, key, value, headers))

    def append_event(self, event: Event) -> None:
        """As its sender does."""
        value, headers = encode(event)
        self.append(TOPIC_OF[event.type].name, aggregate_key(event.data).encode(), value, headers)

    def of(self, topics: Iterable[str]) -> dict[Partition, list[Lying]]:
        """All partitions of these topics."""
        wanted = set(topics)
        return {partition: records for partition, records in sorted(self.partitions.items()) if partition[0] in wanted}


@dataclass
class Work:
    """A row of the work table."""

    lease: int | None = None
    until: datetime | None = None


@dataclass
class Image:
    """A row as the database keeps it: the state as text."""

    state: str
    row: Row


@dataclass
class Database:
    """Everything a service keeps. A transaction works on a copy; a crash before its commit leaves this one as it was."""

    positions: dict[Partition, int] = field(default_factory=dict)
    inbox: set[tuple[str, str]] = field(default_factory=set)
    images: dict[Ref, Image] = field(default_factory=dict)
    outbox: list[Event] = field(default_factory=list)
    work: dict[str, Work] = field(default_factory=dict)
    sweep: set[Ref] = field(default_factory=set)

    def copy(self) -> "Database":
        """What a transaction works on. Images and events are never changed in place, so they are shared."""
        work = {key: replace(row) for key, row in self.work.items()}
        return Database(dict(self.positions), set(self.inbox), dict(self.images), list(self.outbox), work, set(self.sweep))

    def load(self, domain: Domain, refs: Iterable[Ref]) -> dict[Ref, Row]:
        """`store.lock_rows`: absent ones are inserted."""
        rows = {}
        for ref in sorted(set(refs)):
            aggregate = domain.aggregates[ref.aggregate]
            if image := self.images.get(ref):
                kept = image.row
                rows[ref] = Row(
                    state=aggregate.state.stored(image.state),
                    sequence=kept.sequence,
                    created_at=kept.created_at,
                    updated_at=kept.updated_at,
                    offsets=dict(kept.offsets),
                    own_event_id=kept.own_event_id,
                )
            else:
                rows[ref] = Row(aggregate.state())
        return rows

    def save(self, rows: Mapping[Ref, Row]) -> None:
        """`store.save_rows`."""
        for ref, row in rows.items():
            self.images[ref] = Image(row.state.model_dump_json(), row)


@dataclass
class Service:
    """One service: its domain, the topics it reads, its database, and how it treats a batch."""

    name: str
    domain: Domain
    topics: tuple[str, ...]
    clock: Clock
    log: Log
    variant: Variant = SOUND
    database: Database = field(default_factory=Database)
    executes: bool = False
    _ids: Any = field(default_factory=count)

    def new_id(self) -> str:
        """Ids that no other run of the same seed has differently."""
        return f"{self.name}-{next(self._ids):06}"

    def opened(self, record: Lying) -> Event | None:
        """The event in a record, for this service."""
        return opened(record, self.domain.handles)

    def batch(self, groups: Mapping[Partition, list[Lying]], starts: Mapping[Partition, int]) -> Database | None:
        """`batch.apply_batch`: the database after one transaction; None where a partition starts above its position."""
        after = self.database.copy()
        todo: list[Lying] = []
        for partition, records in sorted(groups.items()):
            position = after.positions.get(partition, 0)
            if position < starts[partition]:
                return None
            todo += [record for record in records if record.offset >= position]
            after.positions[partition] = max(position, records[-1].offset + 1)
        fresh = [(record, event) for record in todo if (event := self.opened(record)) and self._is_new(after, event)]
        refs = {ref for _, event in fresh for ref in self.domain.touches(event)}
        unit = Unit(self.domain, after.load(self.domain, refs), self.clock.now, self.new_id)
        for record, event in fresh:
            unit.fold(Incoming(event, record.topic, record.partition, record.offset))
        self._write_back(after, unit)
        return after

    def _is_new(self, database: Database, event: Event) -> bool:
        if is_own(self.domain, event) or TOPIC_OF[event.type] is PROGRESS or self.variant.no_inbox:
            return True
        name = (event.source, event.id)
        if name in database.inbox:
            return False
        database.inbox.add(name)
        return True

    def command(self, refs: Iterable[Ref]) -> tuple[Database, Unit]:
        """`commands.transact`: a copy of the database, and its locked rows."""
        after = self.database.copy()
        return after, Unit(self.domain, after.load(self.domain, refs), self.clock.now, self.new_id)

    def finish(self, after: Database, unit: Unit) -> None:
        """The end of a command: everything written, and committed."""
        self._write_back(after, unit)
        self.database = after

    def _write_back(self, after: Database, unit: Unit) -> None:
        after.save(unit.rows)
        after.outbox += unit.emitted
        if self.executes:
            self._keep_work(after, unit)

    def _keep_work(self, after: Database, unit: Unit) -> None:
        """`WorkEffects`: a row for every open attempt, none for the others."""
        for ref, row in unit.rows.items():
            state = row.state
            if ref.aggregate == ATTEMPT and isinstance(state, AttemptState) and state.requested is not None:
                if state.outcome:
                    after.work.pop(ref.key, None)
                else:
                    after.work.setdefault(ref.key, Work())

    def replayed(
        self, order: Any, ends: Mapping[Partition, int], ahead: bool
    ) -> tuple[dict[Ref, Row], set[tuple[str, str]]]:
        """The fold of the log below `ends` with `decide` booby-trapped, partitions interleaved as `order` draws.

        `ahead`: then own events beyond, from the tail of the log and the outbox (rule 7). Returns rows and inbox.
        """
        trap = Trap(self.domain)
        domain: Any = trap if self.variant.replay_decides else Folding(trap)
        scratch = Database()
        unit = Unit(domain, {}, self.clock.now, self.new_id)
        waiting = {p: records[: ends.get(p, 0)] for p, records in self.log.of(self.topics).items()}
        while open_ := sorted(partition for partition, records in waiting.items() if records):
            record = waiting[order.choice(open_)].pop(0)
            event = self.opened(record)
            if event and self._is_new(scratch, event):
                self._make_room(domain, unit, event)
                unit.fold(Incoming(event, record.topic, record.partition, record.offset))
        if ahead:
            tail = [r for p, records in self.log.of(self.topics).items() for r in records[ends.get(p, 0) :]]
            beyond = [event for record in tail if (event := self.opened(record)) and is_own(self.domain, event)]
            for event in [*beyond, *self.database.outbox]:
                self._make_room(domain, unit, event)
                unit.fold_ahead(event)
        return unit.rows, scratch.inbox

    def _make_room(self, domain: Any, unit: Unit, event: Event) -> None:
        for ref in domain.touches(event):
            unit.rows.setdefault(ref, Row(domain.aggregates[ref.aggregate].state()))


class Trap:
    """A domain that must not be asked to decide."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._domain, name)

    def decide(self, ref: Ref, states: Any, now: datetime) -> Any:
        """Whoever asks has been caught."""
        raise AssertionError(f"a replay asked for a decision about {ref.aggregate} {ref.key}")


def opened(record: Lying, handles: frozenset[str]) -> Event | None:
    """The event in a record, for who handles these types."""
    if handles not in record.read:
        event = decode(record.value, record.headers, handles, appended_at(record))
        record.read[handles] = None if isinstance(event, Unhandled) else event
    return record.read[handles]


def differing(live: Mapping[Ref, Image], replayed: Mapping[Ref, Row]) -> list[str]:
    """Rows in which a replay and the live database differ, by what differs. Rows that no event made do not count."""
    found = []
    known = {ref: image for ref, image in live.items() if image.row.created_at is not None}
    for ref in sorted(known.keys() | {ref for ref, row in replayed.items() if row.created_at is not None}):
        if ref not in known or ref not in replayed:
            found.append(f"{ref.aggregate} {ref.key} is {'only in the log' if ref not in known else 'not in the log'}")
            continue
        ours, theirs = known[ref].row, replayed[ref]
        pairs = {
            "state": (known[ref].state, theirs.state.model_dump_json()),
            "sequence": (ours.sequence, theirs.sequence),
            "created_at": (ours.created_at, theirs.created_at),
            "updated_at": (ours.updated_at, theirs.updated_at),
            "offsets": (ours.offsets, theirs.offsets),
            "own_event_id": (ours.own_event_id, theirs.own_event_id),
        }
        found += [f"{ref.aggregate} {ref.key}: {name}: {a} / {b}" for name, (a, b) in pairs.items() if a != b]
    return found
