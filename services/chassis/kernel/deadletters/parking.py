"""Later records of an aggregate wait, in order, behind one whose handling failed; everything else flows on.

What a record holds up is named by the aggregates that it touches; where that cannot be told, by its key. A parked record
holds up what it touches as well. Own events are never parked (design section 3, rule 6), and progress has no order to keep.
The order that is kept is the one that exists: that of a partition.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from schemas.envelope import Event
from schemas.topics import PROGRESS, TOPIC_OF
from services.chassis.kernel.aggregate import Domain, is_own
from services.chassis.kernel.deadletters.repository import Fault, row_of
from services.chassis.kernel.records import Partition, Record, RecordId, named, record_id

_NAME_BYTES = 256
Opened = tuple[Record, Event | None]
"""A record with the event in it; None where reading it failed for a fault of ours."""


@dataclass
class Division:
    """What becomes of the records of a batch."""

    kept: list[tuple[Record, Event]] = field(default_factory=list)
    """To be folded."""
    rows: list[dict[str, object]] = field(default_factory=list)
    """To be kept as dead letters: the failed ones and what is parked behind them or earlier ones."""
    given_up: int = 0
    """Discarded earlier: left out, as replays do."""


def held_up(domain: Domain, record: Record, event: Event | None) -> frozenset[str]:
    """Names of what `record` holds up when it is withheld."""
    if event is not None and TOPIC_OF[event.type] is PROGRESS:
        return frozenset()
    try:
        refs = domain.touches(event) if event is not None else ()
    except Exception:  # this may be why it failed
        refs = ()
    return frozenset(f"{ref.aggregate}/{ref.key}" for ref in refs) or key_name(record)


def waits_for(domain: Domain, record: Record, event: Event | None) -> frozenset[str]:
    """Names of what `record` waits for when that is held up."""
    if event is not None and (is_own(domain, event) or TOPIC_OF[event.type] is PROGRESS):
        return frozenset()
    return held_up(domain, record, event) | key_name(record)


class Keyed(Protocol):
    """What has a record's key."""

    @property
    def key(self) -> bytes | None: ...


def key_name(record: Keyed) -> frozenset[str]:
    """The name that stands for all records of one key, as text that any database and index takes."""
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
    """Divide a batch, in order. `blocked`: per partition, each name that is held up and the offset of the record that does it."""
    division = Division()
    holds: dict[Partition, dict[str, int]] = {partition: dict(names) for partition, names in blocked.items()}
    for record, event in opened:
        place, names = record_id(record), held_up(domain, record, event)
        here = holds.setdefault(place[:2], {})
        behind = min((here[name] for name in waits_for(domain, record, event) if name in here), default=None)
        if place in discarded:
            division.given_up += 1
            continue
        if place in failed:
            division.rows.append(row_of(record, "failed", failed[place], names=names, event=event))
        elif behind is not None:
            fault = Fault(f"parked behind {named((*place[:2], behind))}, whose handling failed", attempts=0)
            division.rows.append(row_of(record, "parked", fault, names=names, blocked_by=behind, event=event))
        else:
            assert event is not None
            division.kept.append((record, event))
            continue
        for name in names:
            here.setdefault(name, record.offset)
    return division
