"""Why: a restore leaves out what the live service would: a record that cannot be folded, and later ones of others behind it.

They become dead letters of the new database, so that an operator finds there what was in the old one.
"""

from dataclasses import dataclass, field, replace

from schemas.envelope import Event
from services.chassis.aggregate import Domain, Ref
from services.chassis.batch import RecordFailure, take_in
from services.chassis.deadletters.parking import divide, held_up, is_own
from services.chassis.isolation import fault_of
from services.chassis.records import Partition, Record, place_of
from services.chassis.unit import Row, Unit

FAILED_AT_MOST = 100
"""So many records that cannot be folded are set aside; more of them mean that the fault is ours."""


@dataclass
class Aside:
    """What a fold has left out."""

    domain: Domain
    letters: list[dict[str, object]] = field(default_factory=list)
    """Rows of dead letters."""
    _failed: int = 0
    _holds: dict[Partition, dict[str, int]] = field(default_factory=dict)

    def fold(self, unit: Unit, record: Record, event: Event, *, repeated: bool) -> None:
        """Fold one record, or leave it out with no trace in the rows; `repeated`: it is a producer's duplicate.

        Raises RecordFailure for an own event, which is never set aside, and for one failure too many.
        """
        if place_of(record)[:2] in self._holds and self._take(record, event):
            return
        before: dict[Ref, Row] = {}
        try:
            for ref in self.domain.touches(event):
                before[ref] = replace(unit.rows[ref], offsets=dict(unit.rows[ref].offsets))
            take_in(unit, record, event, repeated=repeated)
        except Exception as error:
            unit.rows.update(before)
            failure = RecordFailure(record, error)
            self._failed += 1
            if is_own(self.domain, event) or self._failed > FAILED_AT_MOST:
                raise failure from error
            self._take(record, event, failure)

    def _take(self, record: Record, event: Event, failure: RecordFailure | None = None) -> bool:
        """Whether the record is left out: it failed, or it waits for one that is."""
        partition = place_of(record)[:2]
        failed = {place_of(record): fault_of(failure, 1)} if failure is not None else {}
        division = divide(self.domain, [(record, event)], failed, self._holds, frozenset())
        if division.rows:
            self.letters += division.rows
            for name in held_up(self.domain, record, event):
                self._holds.setdefault(partition, {}).setdefault(name, record.offset)
        return bool(division.rows)
