"""Isolates a record that cannot be handled: it is found, retried and made a dead letter, so that it blocks only its aggregate.

A failure that names its record is attributed to it; on any other the batch is halved until one record is left (bisection). A record
that keeps failing becomes a dead letter in one transaction with the position. Three failures stop the partition instead: of an own
event, which never becomes a dead letter; an error which says that this database or this code is older than the log; and the limit.
"""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import asyncpg
from sqlalchemy.exc import DBAPIError

from schemas.envelope import Event, UnknownVersion
from services.chassis.kernel.aggregate import Domain, is_own
from services.chassis.kernel.consuming.identity.examine import Cause
from services.chassis.kernel.deadletters.limit import LimitReached
from services.chassis.kernel.deadletters.models import Fault
from services.chassis.kernel.numbering import SequenceGap
from services.chassis.kernel.records import Partition, Record, RecordId, event_in, record_id_of
from services.chassis.kernel.transaction.batch import RecordFailure, Records
from services.chassis.process.redaction import redacted
from services.chassis.process.transient import is_transient

ATTEMPTS = 3
"""How many times a record is tried before it becomes a dead letter."""
_PAUSE_SECONDS = 0.05
_STACK_CHARACTERS = 8000


@dataclass(frozen=True, slots=True)
class BatchAttempt:
    """Records to try next, in one transaction."""

    records: Records
    number: int = 1
    """Number of this attempt; only a single record is tried more than once."""
    failed: Mapping[RecordId, Fault] = field(default_factory=dict)
    """Records that become dead letters instead."""

    @property
    def pause_seconds(self) -> float:
        """How long to wait before a retry, in which the cause of the failure may pass."""
        return _PAUSE_SECONDS * self.number if self.number > 1 and not self.failed else 0.0


@dataclass(frozen=True, slots=True)
class StoppedPartition:
    """A partition that stays at its position, to be retried later."""

    partition: Partition
    failure: Exception


class Isolation:
    """Plans the attempts for one poll, in order per partition, from the outcomes of earlier attempts. Pure."""

    def __init__(self, domain: Domain, records: Records) -> None:
        self._domain = domain
        self._pending = [BatchAttempt(records)]
        self._left: set[Partition] = set()

    def next(self) -> BatchAttempt | None:
        """The next attempt; None when all records are done."""
        while self._pending:
            attempt = self._pending.pop()
            here = {p: group for p, group in attempt.records.items() if group and p not in self._left}
            if here:
                return replace(attempt, records=here)
        return None

    def applied(self, left: set[Partition]) -> None:
        """An attempt succeeded; the partitions in `left` are skipped from now on, since they will be read again."""
        self._left |= left

    def failed(self, attempt: BatchAttempt, failure: Exception) -> StoppedPartition | None:
        """An attempt failed; returns the partition that stops there, if one does. Raises `failure` if it is a transient error."""
        if is_transient(failure):
            raise failure
        if not _alone(attempt.records):
            parts = (
                split(attempt.records, failure.record) if isinstance(failure, RecordFailure) else halves(attempt.records)
            )
            self._pending += [BatchAttempt(part) for part in reversed(parts)]
            return None
        ((partition, (record,)),) = attempt.records.items()
        if attempt.failed or self._stops(record, failure):  # not even a dead letter can be made of it, or none may
            self._left.add(partition)
            return StoppedPartition(partition, failure)
        if attempt.number < ATTEMPTS:
            self._pending.append(replace(attempt, number=attempt.number + 1))
        else:
            self._pending.append(replace(attempt, failed={record_id_of(record): fault_of(failure, ATTEMPTS)}))
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
    """The cause to report for a partition that a failing record stops."""
    cause = failure.error if isinstance(failure, RecordFailure) else failure
    return "gap" if isinstance(cause, SequenceGap) else "record"


def fault_of(failure: Exception, attempts: int) -> Fault:
    """Error, stack and attempts of a failure, as a dead letter stores them."""
    cause = failure.error if isinstance(failure, RecordFailure) else failure
    said = cause.orig if isinstance(cause, DBAPIError) and cause.orig is not None else cause
    # the text of asyncpg's errors goes on with the content of the row
    words = said.args[0] if isinstance(said, asyncpg.PostgresError) and said.args else said
    stack = redacted("".join(traceback.format_exception(cause)))[-_STACK_CHARACTERS:]
    return Fault(redacted(f"{type(said).__name__}: {words}")[:2000], stack, attempts)


def halves(groups: Records) -> tuple[Records, Records]:
    """Two halves of the records; of each partition the earlier records come first."""
    records = [record for partition in sorted(groups) for record in groups[partition]]
    middle = len(records) // 2
    return _grouped(records[:middle]), _grouped(records[middle:])


def split(groups: Records, culprit: Record) -> tuple[Records, Records, Records]:
    """The records before the culprit in its partition; the culprit alone; all other records."""
    partition = record_id_of(culprit)[:2]
    before = [record for record in groups[partition] if record.offset < culprit.offset]
    behind = [record for record in groups[partition] if record.offset > culprit.offset]
    return {partition: before}, {partition: [culprit]}, {**groups, partition: behind}


def _grouped(records: Sequence[Record]) -> Records:
    groups: dict[Partition, list[Record]] = {}
    for record in records:
        groups.setdefault(record_id_of(record)[:2], []).append(record)
    return groups


def _alone(groups: Records) -> bool:
    return sum(map(len, groups.values())) == 1
