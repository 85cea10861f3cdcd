"""Checks the preconditions of a replay; each refusal names the fault and the remedy, and changes nothing."""

import shutil
from pathlib import Path

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.kafka.metadata import ask_once
from services.chassis.kernel import log, store
from services.chassis.kernel.consuming.identity import rows
from services.chassis.kernel.consuming.identity.examine import PartitionStop, Span, stops_of
from services.chassis.kernel.records import Partition
from services.chassis.kernel.tables import PROJECTION
from services.chassis.migrations.revisions import missing, unknown
from services.chassis.migrations.statements import REVISIONS
from services.chassis.replay import statements
from services.chassis.replay.projection import Projection

_ROOM = 1.5
"""Disk space that a shadow needs, as a multiple of the projection's size; it allows for indexes that grow unevenly."""


class ReplayRefused(Exception):
    """A replay is not possible in the present state; live data are unchanged."""


async def examine(projection: Projection, engine: AsyncEngine, *, accept_incomplete: bool) -> dict[Partition, int]:
    """Return the first offset of each partition of the projection's topics. Raises ReplayRefused and UnknownTopic."""
    await _same_schema(projection, engine)
    spans, stops = await spans_and_stops(projection, engine)
    if reasons := [why.reason for why in stops.values() if why.cause != "removed"]:
        raise ReplayRefused(f"the projection was not folded from this log: {'; '.join(reasons)}")
    gone = {partition: begin for partition, (begin, _) in spans.items() if begin > 0}
    if gone and not accept_incomplete:
        where = ", ".join(f"{topic}:{number} from offset {begin}" for (topic, number), begin in sorted(gone.items()))
        raise ReplayRefused(
            f"the log is complete only {where}: earlier records were removed, so the projection would lack their events; "
            "restore the topic, or accept this with --accept-incomplete"
        )
    await _enough_disk(engine)
    return {partition: begin for partition, (begin, _) in spans.items()}


async def spans_and_stops(
    projection: Projection, engine: AsyncEngine
) -> tuple[dict[Partition, log.Range], dict[Partition, PartitionStop]]:
    """Return the first and end offsets of each partition of the projection's topics, and the reasons for those that must
    not be read on.

    Positions are read before ends, and both only grow: so a position beyond its end is an error, not a race.
    """
    async with engine.connect() as connection:
        known = await store.positions(connection)
        kept = await rows.kept(connection)
    spans = await log.bounds(projection.cluster, projection.topics)
    found = await ask_once(projection.cluster, projection.topics)
    positions = {partition: offset for partition, offset in known.items() if partition[0] in projection.topics}
    ranges = {partition: Span(*span) for partition, span in spans.items()}
    return spans, stops_of(projection.service, positions, kept, found, ranges)


async def _same_schema(projection: Projection, engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        found = [revision for (revision,) in await connection.execute(REVISIONS)]
    if newer := unknown(projection.service, found):
        raise ReplayRefused(
            f"the database of {projection.service} is at revision {', '.join(sorted(newer))}, which this version does not "
            "know: it is newer than this code; use the version that the service runs"
        )
    if missing(projection.service, found):
        raise ReplayRefused(
            f"the database of {projection.service} is older than this code; run `neuroweaver migrate` first"
        )


async def _enough_disk(engine: AsyncEngine) -> None:
    """Check the free disk space if the database's files are on this machine; elsewhere a full disk ends the replay harmlessly."""
    async with engine.connect() as connection:
        size = int(await connection.scalar(statements.SCHEMA_BYTES, {"schema": PROJECTION}) or 0)
        try:
            folder = Path(str(await connection.scalar(statements.DATA_DIRECTORY)))
            free = shutil.disk_usage(folder).free
        except (DBAPIError, OSError):
            return
    if free < size * _ROOM:
        raise ReplayRefused(
            f"{free / 2**20:.0f} MiB are free on the database's disk, and a shadow of this projection needs about "
            f"{size * _ROOM / 2**20:.0f}; free disk space, or drop old versions with `neuroweaver projections drop`"
        )
