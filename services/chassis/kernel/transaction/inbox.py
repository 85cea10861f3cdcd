"""A producer that sends an event again is known by facts of the log alone, so that live and replayed state agree on it.

A record is a duplicate when a record of the same partition with the same source, id, type and content was appended before it,
at most `INBOX_WINDOW` earlier. No clock of a reader and no order between partitions has a part in it. An id that is used again for
something else is another event. What lies on two partitions, or further apart, is applied twice, which is harmless: `evolve`
gives the same state however often it folds an event.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.envelope import Event
from schemas.topics import PROGRESS, TOPIC_OF
from services.chassis.kernel import store
from services.chassis.kernel.aggregate import Domain, is_own
from services.chassis.kernel.records import Record, RecordId, appended_at, record_id
from services.chassis.kernel.store import INBOX_WINDOW, Entry, Sighting


def repeats(counts: Sighting, other: Sighting) -> bool:
    """Whether `other`, with the same identity, is a duplicate of the record that `counts`."""
    return other.offset != counts.offset and other.appended_at - counts.appended_at <= INBOX_WINDOW


def identity(record: Record, event: Event) -> bytes:
    """What two records have in common that are the same event sent twice to one partition."""
    parts = (record.topic, str(record.partition), event.source, event.id, event.type)
    digest = blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16)
    digest.update(record.value or b"")
    return digest.digest()


def exempt(domain: Domain, event: Event) -> bool:
    """Own numbered events are known by their number, and progress is lossy: neither is looked for."""
    return is_own(domain, event) or TOPIC_OF[event.type] is PROGRESS


@dataclass
class Sightings:
    """The rule in memory, for folds that have no inbox."""

    _known: dict[bytes, Sighting] = field(default_factory=dict)

    def repeated(self, record: Record, event: Event) -> bool:
        """Whether the record is a duplicate; feed it in the order of each partition."""
        name, seen = identity(record, event), Sighting(record.offset, appended_at(record))
        counts = self._known.setdefault(name, seen)
        if repeats(counts, seen):
            return True
        self._known[name] = seen
        return False


@dataclass
class Entering:
    """Records on their way into the inbox; of each identity the first is entered, and what it says of the others decides what follows."""

    pending: dict[bytes, Sequence[Entry]] = field(default_factory=dict)
    duplicates: set[RecordId] = field(default_factory=set)
    """Places of the duplicates among them, as far as they are known."""

    def add(self, record: Record, event: Event) -> None:
        """Add a record, in the order of its partition."""
        entry = Entry(event.source, event.id, identity(record, event), record_id(record), appended_at(record))
        self.pending[entry.identity] = (*self.pending.get(entry.identity, ()), entry)

    @property
    def next(self) -> Sequence[Entry]:
        """What is to be entered now, under the locks of the positions; nothing where all is known."""
        return [entries[0] for entries in self.pending.values()]

    def learn(self, counts: Mapping[bytes, Sighting]) -> None:
        """Which record counts for each of those."""
        self.pending = {
            name: left for name, entries in self.pending.items() if (left := _left(counts[name], entries, self.duplicates))
        }

    async def enter(self, connection: AsyncConnection) -> set[RecordId]:
        """Enter what is left; returns the places of the duplicates."""
        while entries := self.next:
            self.learn(await store.enter_inbox(connection, entries))
        return self.duplicates


def entering(domain: Domain, decoded: Iterable[tuple[Record, Event]]) -> Entering:
    """Those of `decoded` that duplicates are looked for of."""
    found = Entering()
    for record, event in decoded:
        if not exempt(domain, event):
            found.add(record, event)
    return found


async def duplicates(connection: AsyncConnection, domain: Domain, decoded: Iterable[tuple[Record, Event]]) -> set[RecordId]:
    """Enter records in the inbox, under the locks of their positions; returns the places of the duplicates among them."""
    return await entering(domain, decoded).enter(connection)


async def counted_instead(connection: AsyncConnection, domain: Domain, record: Record, event: Event) -> int | None:
    """The offset of a later record that counts for `record`, which was withheld when that one was applied; None for none."""
    if exempt(domain, event):
        return None
    entry = Entry(event.source, event.id, identity(record, event), record_id(record), appended_at(record))
    counts = (await store.enter_inbox(connection, [entry]))[entry.identity]
    return counts.offset if counts.offset > record.offset and repeats(counts, entry.sighting) else None


def _left(counts: Sighting, entries: Sequence[Entry], found: set[RecordId]) -> Sequence[Entry]:
    """What follows from the record that counts for the first of `entries`: duplicates are put into `found`; returns what is left,
    from the first one on that counts anew, because the window is over."""
    first, *rest = entries
    if counts.offset != first.sighting.offset:
        found.add(first.place)
    for number, entry in enumerate(rest):
        if not repeats(counts, entry.sighting):
            return rest[number:]
        found.add(entry.place)
    return ()
