"""What it takes to say where a service stands in the log, from beside it: no consumer, no group, only database and broker."""

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.metadata import FoundLog, ask_once
from services.chassis.kernel import log, store
from services.chassis.kernel.consuming.identity import rows
from services.chassis.kernel.consuming.identity.examine import KeptLog, Span, Standing, all_standing
from services.chassis.kernel.records import Partition


@dataclass(frozen=True)
class Reading:
    """What a service reads, and where it keeps how far."""

    service: str
    source: str
    """`ce_source` of its own events."""
    topics: tuple[str, ...]
    cluster: Cluster
    database_url: str


@dataclass(frozen=True)
class LogNow:
    """The log as it is now."""

    found: FoundLog
    spans: dict[Partition, Span]
    """Of every partition that exists."""


async def look(reading: Reading) -> LogNow:
    """Raises NoIdentity and the broker's errors."""
    found = await ask_once(reading.cluster, reading.topics)
    spans = await log.bounds(reading.cluster, found.topics)
    return LogNow(found, {partition: Span(*span) for partition, span in spans.items()})


class KeptPlaces(NamedTuple):
    """How far a service has come, and what it says, by its database alone."""

    positions: dict[Partition, int]
    kept: dict[str, KeptLog]
    said: dict[Partition, rows.Stands]


@dataclass(frozen=True)
class Places:
    """How far a service has come, and what stands."""

    positions: dict[Partition, int]
    kept: dict[str, KeptLog]
    said: dict[Partition, rows.Stands]
    """What the service itself says of partitions that stand, as of its last look."""
    standing: dict[Partition, Standing]
    """What stands now: the log's own reasons, else what the service says."""
    now: LogNow
    """The log that it is compared with."""


async def places(connection: AsyncConnection, reading: Reading) -> Places:
    """Read it from the database, then look at the log. Raises NoIdentity and the servers' errors.

    Positions are read before ends: both only grow, so a position that lies beyond its end did so.
    """
    kept = await kept_places(connection, reading)
    return compared(reading, kept, await look(reading))


async def kept_places(connection: AsyncConnection, reading: Reading) -> KeptPlaces:
    """What the database says. Raises its errors."""
    known = await store.positions(connection)
    positions = {partition: offset for partition, offset in known.items() if partition[0] in reading.topics}
    return KeptPlaces(positions, await rows.kept(connection), await rows.standing(connection))


def compared(reading: Reading, places: KeptPlaces, now: LogNow) -> Places:
    """What the database says, compared with the log as it was found."""
    positions, kept, said = places
    found = all_standing(reading.service, positions, kept, now.found, now.spans)
    told = {p: one.standing for p, one in said.items() if one.standing.cause in ("record", "gap") and p in positions}
    return Places(positions, kept, said, told | found, now)


def engine_of(reading: Reading) -> AsyncEngine:
    """An engine on the service's database; whoever asks disposes of it."""
    return store.connect(reading.database_url, pool_size=2)
