"""Compares a service's positions with the log from outside the service, by database and broker, without joining its group."""

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.metadata import FoundLog, ask_once
from services.chassis.kernel import log, store
from services.chassis.kernel.consuming.identity import rows
from services.chassis.kernel.consuming.identity.examine import KeptLog, PartitionStop, Span, stops_of
from services.chassis.kernel.records import Partition


@dataclass(frozen=True)
class ConsumedTopics:
    """The topics that a service reads, and the database of its positions."""

    service: str
    source: str
    """`ce_source` of the service's own events."""
    topics: tuple[str, ...]
    cluster: Cluster
    database_url: str


@dataclass(frozen=True)
class LogNow:
    """The identity of the log and the offsets of its partitions now."""

    found: FoundLog
    spans: dict[Partition, Span]
    """First and end offsets of every partition that exists."""


async def look(reading: ConsumedTopics) -> LogNow:
    """Read the identity and the offsets of the log. Raises NoIdentity and the broker's errors."""
    found = await ask_once(reading.cluster, reading.topics)
    spans = await log.bounds(reading.cluster, found.topics)
    return LogNow(found, {partition: Span(*span) for partition, span in spans.items()})


class StoredPositions(NamedTuple):
    """A service's positions, log identities and stops, from its database alone."""

    positions: dict[Partition, int]
    kept: dict[str, KeptLog]
    stops: dict[Partition, rows.StoredStop]


@dataclass(frozen=True)
class ComparedPositions:
    """A service's positions compared with the log, with the stopped partitions."""

    positions: dict[Partition, int]
    kept: dict[str, KeptLog]
    stored: dict[Partition, rows.StoredStop]
    """The stops that the service itself stored at its last check."""
    stops: dict[Partition, PartitionStop]
    """The stops now: those found by comparing with the log, else those that the service stored."""
    now: LogNow
    """The log that the positions are compared with."""


async def compared_positions(connection: AsyncConnection, reading: ConsumedTopics) -> ComparedPositions:
    """Read the positions from the database, then compare them with the log. Raises NoIdentity and the servers' errors.

    Positions are read before ends, and both only grow: so a position beyond its end is an error, not a race.
    """
    kept = await stored_positions(connection, reading)
    return compared(reading, kept, await look(reading))


async def stored_positions(connection: AsyncConnection, reading: ConsumedTopics) -> StoredPositions:
    """Read positions, log identities and stops from the database. Raises its errors."""
    known = await store.positions(connection)
    positions = {partition: offset for partition, offset in known.items() if partition[0] in reading.topics}
    return StoredPositions(positions, await rows.kept(connection), await rows.stored_stops(connection))


def compared(reading: ConsumedTopics, stored: StoredPositions, now: LogNow) -> ComparedPositions:
    """Compares the stored positions with the log."""
    found = stops_of(reading.service, stored.positions, stored.kept, now.found, now.spans)
    reported = {
        partition: one.stop
        for partition, one in stored.stops.items()
        if one.stop.cause in ("record", "gap") and partition in stored.positions
    }
    return ComparedPositions(stored.positions, stored.kept, stored.stops, reported | found, now)


def engine_of(reading: ConsumedTopics) -> AsyncEngine:
    """Return an engine on the service's database; the caller disposes of it."""
    return store.connect(reading.database_url, pool_size=2)
