"""Why: one record that cannot be handled holds up its own aggregate and nothing else: it is found, tried again, set aside.

A failure that names its record is believed; any other is halved until one record is left (bisection). What keeps failing
becomes a dead letter in one transaction with the position. Three things stop the partition instead: an own event, which is
never set aside; a fault that says that this database or this code is older than the log; and the limit.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.envelope import Event, UnknownVersion
from services.chassis.aggregate import Domain, is_own
from services.chassis.batch import RecordFailure
from services.chassis.deadletters import limit as limits
from services.chassis.deadletters.limit import Limit, LimitReached
from services.chassis.deadletters.rows import Fault
from services.chassis.identity.examine import Cause
from services.chassis.numbering import SequenceGap
from services.chassis.records import Partition, Place, Record, event_in, place_of
from services.chassis.redaction import redacted
from services.chassis.surroundings import is_surroundings

ATTEMPTS = 3
"""So often the handling of a record is tried before it becomes a dead letter."""
_PAUSE_SECONDS = 0.05
_STACK_CHARACTERS = 8000

Groups = Mapping[Partition, Sequence[Record]]
Apply = Callable[[Groups, Mapping[Place, Fault]], Awaitable[set[Partition]]]
"""Applies records in one transaction, those of the second argument as dead letters; returns the partitions whose later
records must be left alone, since they will be read again."""
Hold = Callable[[Partition, Exception], None]
"""Stops a partition where its position is, to be tried again later."""


@dataclass(frozen=True)
class Isolation:
    """How one poll is applied when something in it fails."""

    engine: AsyncEngine
    domain: Domain
    limit: Limit
    apply: Apply
    hold: Hold

    async def run(self, groups: Groups) -> None:
        """Apply everything that can be, in order per partition. Raises faults of the surroundings only."""
        pending: list[Groups] = [groups]
        left: set[Partition] = set()
        while pending:
            now = {partition: group for partition, group in pending.pop().items() if group and partition not in left}
            if not now:
                continue
            try:
                left |= await self.apply(now, {})
                continue
            except Exception as error:
                failure = _unless_surroundings(error)
            if _alone(now):
                left |= await self._set_aside(now, failure)
            elif isinstance(failure, RecordFailure):
                pending += reversed(split(now, failure.record))
            else:
                pending += reversed(halves(now))

    async def _set_aside(self, alone: Groups, failure: Exception) -> set[Partition]:
        """Try one record again; when it keeps failing, make it a dead letter, or stop its partition there."""
        ((partition, (record,)),) = alone.items()
        place = place_of(record)
        stops = self._stops(record, failure)
        if stops is None:
            for attempt in range(2, ATTEMPTS + 1):
                await asyncio.sleep(_PAUSE_SECONDS * attempt)
                try:
                    return await self.apply(alone, {})
                except Exception as error:
                    failure = _unless_surroundings(error)
            stops = await self._beyond_limit(place)
        if stops is None:
            try:
                return await self.apply(alone, {place: fault_of(failure, ATTEMPTS)})
            except Exception as error:  # not even a dead letter can be made of it
                stops = _unless_surroundings(error)
        self.hold(partition, stops)
        return {partition}

    async def _beyond_limit(self, place: Place) -> LimitReached | None:
        async with self.engine.connect() as connection:
            found = await limits.look(connection, self.limit, place[:2], [place[2]])
        return found[1] if found else None

    def _stops(self, record: Record, failure: Exception) -> Exception | None:
        cause = failure.error if isinstance(failure, RecordFailure) else failure
        if isinstance(cause, UnknownVersion | SequenceGap | LimitReached):
            return failure
        try:
            event = event_in(record, self.domain.handles)
        except Exception:  # this is why it fails
            return None
        return failure if isinstance(event, Event) and is_own(self.domain, event) else None


def cause_of(failure: Exception) -> Cause:
    """Why a partition stands at a record whose handling stops it."""
    cause = failure.error if isinstance(failure, RecordFailure) else failure
    return "gap" if isinstance(cause, SequenceGap) else "record"


def fault_of(failure: Exception, attempts: int) -> Fault:
    """What a dead letter says of a failure."""
    cause = failure.error if isinstance(failure, RecordFailure) else failure
    said = cause.orig if isinstance(cause, DBAPIError) and cause.orig is not None else cause
    stack = redacted("".join(traceback.format_exception(cause)))[-_STACK_CHARACTERS:]
    return Fault(redacted(f"{type(said).__name__}: {said}")[:2000], stack, attempts)


def halves(groups: Groups) -> tuple[Groups, Groups]:
    """Two parts of as many records, each partition's first records in the first."""
    records = [record for partition in sorted(groups) for record in groups[partition]]
    middle = len(records) // 2
    return _grouped(records[:middle]), _grouped(records[middle:])


def split(groups: Groups, culprit: Record) -> tuple[Groups, Groups, Groups]:
    """What lies before the culprit in its partition; the culprit alone; everything else."""
    partition = place_of(culprit)[:2]
    before = [record for record in groups[partition] if record.offset < culprit.offset]
    behind = [record for record in groups[partition] if record.offset > culprit.offset]
    return {partition: before}, {partition: [culprit]}, {**groups, partition: behind}


def _grouped(records: Sequence[Record]) -> Groups:
    groups: dict[Partition, list[Record]] = {}
    for record in records:
        groups.setdefault(place_of(record)[:2], []).append(record)
    return groups


def _alone(groups: Groups) -> bool:
    return sum(map(len, groups.values())) == 1


def _unless_surroundings(error: Exception) -> Exception:
    if is_surroundings(error):
        raise error
    return error
