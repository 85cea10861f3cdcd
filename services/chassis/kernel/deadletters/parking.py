"""Parks later records of an aggregate, in order, behind one whose handling failed; all other records are applied.

A record blocks the aggregates that it touches or, where they are unknown, its key. A parked record blocks what it touches as
well. Own events are never parked (rule 6 of docs/architecture.md), nor are progress events, which need no order. The order is kept
within a partition, as in Kafka.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from schemas.envelope import Event
from schemas.topics import PROGRESS, TOPIC_OF
from services.chassis.kernel.aggregate import Domain, is_own
from services.chassis.kernel.deadletters.conversion import row_of
from services.chassis.kernel.deadletters.models import Fault
from services.chassis.kernel.records import Partition, Record, RecordId, named, record_id_of

_NAME_BYTES = 256
Opened = tuple[Record, Event | None]
"""A record with its event; None where decoding it failed with an unexpected error."""


@dataclass
class Division:
    """A batch, divided by what happens to its records."""

    kept: list[tuple[Record, Event]] = field(default_factory=list)
    """Records to fold."""
    rows: list[dict[str, object]] = field(default_factory=list)
    """Rows of new dead letters: failed records, and records parked behind them or behind earlier ones."""
    discarded: int = 0
    """Number of records that were discarded earlier: they are skipped, as in a replay."""


def held_up(domain: Domain, record: Record, event: Event | None) -> frozenset[str]:
    """Return the names of what `record` blocks while it is failed or parked."""
    if event is not None and TOPIC_OF[event.type] is PROGRESS:
        return frozenset()
    try:
        refs = domain.touches(event) if event is not None else ()
    except Exception:  # this may be why it failed
        refs = ()
    return frozenset(f"{ref.aggregate}/{ref.key}" for ref in refs) or key_name(record)


def waits_for(domain: Domain, record: Record, event: Event | None) -> frozenset[str]:
    """Return the names that `record` waits for when one of them is blocked."""
    if event is not None and (is_own(domain, event) or TOPIC_OF[event.type] is PROGRESS):
        return frozenset()
    return held_up(domain, record, event) | key_name(record)


class Keyed(Protocol):
    """Anything that has a record's key."""

    @property
    def key(self) -> bytes | None: ...


def key_name(record: Keyed) -> frozenset[str]:
    """Return the name that stands for all records of one key, as text that the database can store and index."""
    if record.key is None:
        return frozenset()
    name = record.key[:_NAME_BYTES].decode("utf-8", "backslashreplace").replace("\x00", "\\x00")
    if len(record.key) > _NAME_BYTES:
        name += "~" + hashlib.sha256(record.key).hexdigest()
    return frozenset({"/" + name})


def divide(
    domain: Domain,
    opened: Sequence[Opened],
    failed: Mapping[RecordId, Fault],
    blocked: Mapping[Partition, Mapping[str, int]],
    discarded: frozenset[RecordId],
) -> Division:
    """Divide a batch, in order. `blocked`: per partition, each blocked name and the offset of the record that blocks it."""
    division = Division()
    holds: dict[Partition, dict[str, int]] = {partition: dict(names) for partition, names in blocked.items()}
    for record, event in opened:
        record_id, names = record_id_of(record), held_up(domain, record, event)
        here = holds.setdefault(record_id[:2], {})
        behind = min((here[name] for name in waits_for(domain, record, event) if name in here), default=None)
        if record_id in discarded:
            division.discarded += 1
            continue
        if record_id in failed:
            division.rows.append(row_of(record, "failed", failed[record_id], names=names, event=event))
        elif behind is not None:
            fault = Fault(f"parked behind {named((*record_id[:2], behind))}, whose handling failed", attempts=0)
            division.rows.append(row_of(record, "parked", fault, names=names, blocked_by=behind, event=event))
        else:
            assert event is not None
            division.kept.append((record, event))
            continue
        for name in names:
            here.setdefault(name, record.offset)
    return division
