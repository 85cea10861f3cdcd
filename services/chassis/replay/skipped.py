"""Skips in a restore what the live service would: a record that cannot be folded, and later records of others behind it.

They become dead letters of the new database, so that an operator finds the same ones there as in the old database.
"""

from contextlib import suppress
from dataclasses import dataclass, field, replace

from schemas.envelope import Event
from services.chassis.kernel.aggregate import Domain, Ref, is_own
from services.chassis.kernel.consuming.isolation import fault_of
from services.chassis.kernel.deadletters.parking import divide, held_up
from services.chassis.kernel.records import Partition, Record, named, record_id_of
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.kernel.transaction.batch import RecordFailure, fold_record
from services.chassis.kernel.transaction.unit_of_work import UnitOfWork

MAX_FAILED = 100
"""After this many records that cannot be folded the restore is abandoned, since the code is probably at fault."""


@dataclass
class SkippedRecords:
    """The records that a fold has skipped."""

    domain: Domain
    accepting: bool = False
    """Whether an operator accepts that own events which cannot be folded are skipped, and any number of other records."""
    letters: list[dict[str, object]] = field(default_factory=list)
    """Rows of dead letters."""
    passed_over: list[str] = field(default_factory=list)
    """Ids of the records of own events that could not be folded unchanged."""
    _failed: int = 0
    _holds: dict[Partition, dict[str, int]] = field(default_factory=dict)

    def fold(self, unit: UnitOfWork, record: Record, event: Event, *, repeated: bool) -> None:
        """Fold one record, or skip it without a change of any row; `repeated`: it is a producer's duplicate.

        Raises RecordFailure for an own event, which never becomes a dead letter, and for one failure too many, unless accepted.
        """
        if record_id_of(record)[:2] in self._holds and self._take(record, event):
            return
        before: dict[Ref, AggregateRow] = {}
        try:
            before = self._rows_of(unit, event)
            fold_record(unit, record, event, repeated=repeated)
        except Exception as error:
            unit.rows.update(before)
            failure = RecordFailure(record, error)
            self._failed += 1
            own = is_own(self.domain, event)
            if not self.accepting and (own or self._failed > MAX_FAILED):
                raise failure from error
            if own:
                self._pass_over(unit, record, event, repeated=repeated)
            else:
                self._take(record, event, failure)

    def _pass_over(self, unit: UnitOfWork, record: Record, event: Event, *, repeated: bool) -> None:
        """Continue after an own event whose predecessors are lost or that no version can fold; its sequence number still counts."""
        self.passed_over.append(named(record_id_of(record)))
        with suppress(Exception):  # `touches` itself may be what failed
            owner, number = self.domain.owner(event), event.sequence or 0
            before = self._rows_of(unit, event)
            unit.rows[owner].jump_to(number - 1)
            try:
                fold_record(unit, record, event, repeated=repeated)
            except Exception:
                unit.rows.update(before)
                unit.rows[owner].jump_to(number - 1)
                unit.rows[owner].number(event)

    def _rows_of(self, unit: UnitOfWork, event: Event) -> dict[Ref, AggregateRow]:
        """Return the rows that `event` touches, as they are now."""
        return {ref: replace(unit.rows[ref], offsets=dict(unit.rows[ref].offsets)) for ref in self.domain.touches(event)}

    def _take(self, record: Record, event: Event, failure: RecordFailure | None = None) -> bool:
        """Return whether the record is skipped: it failed, or it waits for one that was skipped."""
        partition = record_id_of(record)[:2]
        failed = {record_id_of(record): fault_of(failure, 1)} if failure is not None else {}
        division = divide(self.domain, [(record, event)], failed, self._holds, frozenset())
        if division.rows:
            self.letters += division.rows
            for name in held_up(self.domain, record, event):
                self._holds.setdefault(partition, {}).setdefault(name, record.offset)
        return bool(division.rows)
