"""Recognises events that a producer sent twice from facts of the log alone, so that live state and replayed state agree.

A record is a duplicate when a record of the same partition with the same source, id, type and content was appended before it,
at most `INBOX_WINDOW` earlier. The rule uses neither a reader's clock nor an order between partitions. An id that is reused for
other content is another event. Duplicates on two partitions, or further apart, are applied twice, which is harmless: `evolve`
returns the same state however often it folds an event.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from schemas.envelope import Event
from schemas.topics import PROGRESS, TOPIC_OF
from services.chassis.kernel import store
from services.chassis.kernel.aggregate import Domain, is_own
from services.chassis.kernel.records import Record, RecordId, appended_at, record_id_of
from services.chassis.kernel.statements import INBOX_WINDOW
from services.chassis.kernel.store import InboxEntry, Sighting
from services.chassis.postgres.transactions import Session


def repeats(counts: Sighting, other: Sighting) -> bool:
    """Whether `other`, which has the same identity, is a duplicate of the record `counts`."""
    return other.offset != counts.offset and other.appended_at - counts.appended_at <= INBOX_WINDOW


def identity(record: Record, event: Event) -> bytes:
    """A digest that is equal for two records that are the same event, sent twice to one partition."""
    parts = (record.topic, str(record.partition), event.source, event.id, event.type)
    digest = blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16)
    digest.update(record.value or b"")
    return digest.digest()


def exempt(domain: Domain, event: Event) -> bool:
    """Whether duplicates of `event` are not looked for: own events are recognised by sequence number, and progress is lossy."""
    return is_own(domain, event) or TOPIC_OF[event.type] is PROGRESS


@dataclass
class Sightings:
    """Applies the duplicate rule in memory, for folds that have no inbox table."""

    _known: dict[bytes, Sighting] = field(default_factory=dict)

    def repeated(self, record: Record, event: Event) -> bool:
        """Whether the record is a duplicate; records must be passed in the order of their partition."""
        name, seen = identity(record, event), Sighting(record.offset, appended_at(record))
        counts = self._known.setdefault(name, seen)
        if repeats(counts, seen):
            return True
        self._known[name] = seen
        return False


@dataclass
class InboxEntries:
    """Records to enter in the inbox. The first of each identity is entered; the record that counts for it decides about the others."""

    pending: dict[bytes, Sequence[InboxEntry]] = field(default_factory=dict)
    duplicates: set[RecordId] = field(default_factory=set)
    """Ids of the records found to be duplicates so far."""

    def add(self, record: Record, event: Event) -> None:
        """Add a record, in the order of its partition."""
        entry = InboxEntry(event.source, event.id, identity(record, event), record_id_of(record), appended_at(record))
        self.pending[entry.identity] = (*self.pending.get(entry.identity, ()), entry)

    @property
    def next(self) -> Sequence[InboxEntry]:
        """The entries to insert now, under the locks of the positions; empty when all are decided."""
        return [entries[0] for entries in self.pending.values()]

    def learn(self, counts: Mapping[bytes, Sighting]) -> None:
        """Take the record that counts for each inserted identity, and decide about the pending ones."""
        self.pending = {
            name: left for name, entries in self.pending.items() if (left := _left(counts[name], entries, self.duplicates))
        }

    async def enter(self, connection: Session) -> set[RecordId]:
        """Enter the pending records; returns the ids of the duplicates."""
        while entries := self.next:
            self.learn(await store.enter_inbox(connection, entries))
        return self.duplicates


def entering(domain: Domain, decoded: Iterable[tuple[Record, Event]]) -> InboxEntries:
    """The records of `decoded` that are checked for duplicates."""
    found = InboxEntries()
    for record, event in decoded:
        if not exempt(domain, event):
            found.add(record, event)
    return found


async def duplicates(connection: Session, domain: Domain, decoded: Iterable[tuple[Record, Event]]) -> set[RecordId]:
    """Enter records in the inbox, under the locks of their positions; returns the ids of the duplicates among them."""
    return await entering(domain, decoded).enter(connection)


async def counted_instead(connection: Session, domain: Domain, record: Record, event: Event) -> int | None:
    """The offset of a later record that was applied in place of `record` while `record` was blocked; None where there is none."""
    if exempt(domain, event):
        return None
    entry = InboxEntry(event.source, event.id, identity(record, event), record_id_of(record), appended_at(record))
    counts = (await store.enter_inbox(connection, [entry]))[entry.identity]
    return counts.offset if counts.offset > record.offset and repeats(counts, entry.sighting) else None


def _left(counts: Sighting, entries: Sequence[InboxEntry], found: set[RecordId]) -> Sequence[InboxEntry]:
    """Adds the duplicates among `entries` to `found`, given the record that counts for the first; returns the rest, from the first
    entry beyond the window on, which counts anew."""
    first, *rest = entries
    if counts.offset != first.sighting.offset:
        found.add(first.record_id)
    for number, entry in enumerate(rest):
        if not repeats(counts, entry.sighting):
            return rest[number:]
        found.add(entry.record_id)
    return ()
