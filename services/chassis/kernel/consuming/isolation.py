"""One record that cannot be handled holds up its own aggregate and nothing else: it is found, tried again, set aside.

A failure that names its record is believed; any other is halved until one record is left (bisection). What keeps failing
becomes a dead letter in one transaction with the position. Three things stop the partition instead: an own event, which is
never set aside; a fault that says that this database or this code is older than the log; and the limit.
"""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy.exc import DBAPIError

from schemas.envelope import Event, UnknownVersion
from services.chassis.kernel.aggregate import Domain, is_own
from services.chassis.kernel.consuming.identity.examine import Cause
from services.chassis.kernel.deadletters.limit import LimitReached
from services.chassis.kernel.deadletters.repository import Fault
from services.chassis.kernel.numbering import SequenceGap
from services.chassis.kernel.records import Partition, Record, RecordId, event_in, record_id
from services.chassis.kernel.transaction.batch import RecordFailure
from services.chassis.process.redaction import redacted
from services.chassis.process.transient import is_transient

ATTEMPTS = 3
"""So often the handling of a record is tried before it becomes a dead letter."""
_PAUSE_SECONDS = 0.05
_STACK_CHARACTERS = 8000

Groups = Mapping[Partition, Sequence[Record]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is tried next, in one transaction."""

    records: Groups
    number: int = 1
    """How often it has been tried then; more than once is tried a single record."""
    failed: Mapping[RecordId, Fault] = field(default_factory=dict)
    """Records that become dead letters instead."""

    @property
    def pause_seconds(self) -> float:
        """What made the record fail may be over by then."""
        return _PAUSE_SECONDS * self.number if self.number > 1 and not self.failed else 0.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """A partition that is left where its position is, to be tried again later."""

    partition: Partition
    failure: Exception


class Isolation:
    """What of one poll is tried next, in order per partition; told what became of each attempt. Pure."""

    def __init__(self, domain: Domain, records: Groups) -> None:
        self._domain = domain
        self._pending = [Attempt(records)]
        self._left: set[Partition] = set()

    def next(self) -> Attempt | None:
        """None when nothing is left to try."""
        while self._pending:
            attempt = self._pending.pop()
            here = {p: group for p, group in attempt.records.items() if group and p not in self._left}
            if here:
                return replace(attempt, records=here)
        return None

    def applied(self, left: set[Partition]) -> None:
        """An attempt worked; the partitions in `left` are to be left alone, since they will be read again."""
        self._left |= left

    def failed(self, attempt: Attempt, failure: Exception) -> Stopped | None:
        """An attempt failed; returns the partition that stops there, if one does. Raises `failure` where the surroundings are at fault."""
        if is_transient(failure):
            raise failure
        if not _alone(attempt.records):
            parts = (
                split(attempt.records, failure.record) if isinstance(failure, RecordFailure) else halves(attempt.records)
            )
            self._pending += [Attempt(part) for part in reversed(parts)]
            return None
        ((partition, (record,)),) = attempt.records.items()
        if attempt.failed or self._stops(record, failure):  # not even a dead letter can be made of it, or none may
            self._left.add(partition)
            return Stopped(partition, failure)
        if attempt.number < ATTEMPTS:
            self._pending.append(replace(attempt, number=attempt.number + 1))
        else:
            self._pending.append(replace(attempt, failed={record_id(record): fault_of(failure, ATTEMPTS)}))
        return None

    def _stops(self, record: Record, failure: Exception) -> bool:
        cause = failure.error if isinstance(failure, RecordFailure) else failure
        if isinstance(cause, UnknownVersion | SequenceGap | LimitReached):
            return True
        try:
            event = event_in(record, self._domain.handles)
        except Exception:  # this is why it fails
            return False
        return isinstance(event, Event) and is_own(self._domain, event)


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
    partition = record_id(culprit)[:2]
    before = [record for record in groups[partition] if record.offset < culprit.offset]
    behind = [record for record in groups[partition] if record.offset > culprit.offset]
    return {partition: before}, {partition: [culprit]}, {**groups, partition: behind}


def _grouped(records: Sequence[Record]) -> Groups:
    groups: dict[Partition, list[Record]] = {}
    for record in records:
        groups.setdefault(record_id(record)[:2], []).append(record)
    return groups


def _alone(groups: Groups) -> bool:
    return sum(map(len, groups.values())) == 1
