"""Folds a projection in memory as of a point of the log, with the service's own `evolve`, without database or shadow."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from schemas.envelope import Event, UnknownVersion, Unreadable
from services.chassis.kernel.aggregate import Domain, Ref
from services.chassis.kernel.records import Record, RecordId, event_in, named, record_id_of
from services.chassis.kernel.transaction.aggregate_row import AggregateRow
from services.chassis.process.transient import described
from services.chassis.replay.row import RowFold


@dataclass
class MemoryFold:
    """Folds records into rows by aggregate, all in memory; records must be fed in the order of their partition.

    A record that cannot be handled stops its aggregates there, as in the live service, and is named in `stopped`.
    """

    domain: Domain
    left_out: Set[RecordId] = frozenset()
    """Discarded records; as in every replay they are skipped."""
    stopped: dict[Ref, str] = field(default_factory=dict)
    """Why an aggregate was not folded further, with the id of the record."""
    unread: int = 0
    """Number of records that are no valid events, or of a version that this code does not know."""
    _folds: dict[Ref, RowFold] = field(default_factory=dict)

    @property
    def rows(self) -> Mapping[Ref, AggregateRow]:
        """The folded rows."""
        return {ref: fold.row for ref, fold in self._folds.items()}

    def finish(self) -> None:
        """Add the aggregates whose own events are missing to `stopped`; call it after the last record."""
        self.stopped |= {ref: missing for ref, fold in self._folds.items() if (missing := fold.early.missing())}

    def feed(self, record: Record) -> None:
        """Fold one record. Its content never raises an error."""
        place = record_id_of(record)
        if place in self.left_out:
            return
        try:
            event = event_in(record, self.domain.handles)
        except (Unreadable, UnknownVersion):
            self.unread += 1
            return
        if not isinstance(event, Event):
            return
        for ref in self.domain.touches(event):
            if ref not in self.stopped:
                fold = self._folds.get(ref) or self._folds.setdefault(ref, RowFold(self.domain, ref))
                try:
                    fold.fold(event, record)
                except Exception as error:
                    self.stopped[ref] = f"{named(place)}: {described(error)}"
