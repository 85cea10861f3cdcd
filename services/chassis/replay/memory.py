"""A projection as it was at some point of the log, folded in memory by the service's own `evolve`: no database, no shadow."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from schemas.envelope import Event, UnknownVersion, Unreadable
from services.chassis.kernel.aggregate import Domain, Ref
from services.chassis.kernel.records import Record, RecordId, event_in, named, record_id
from services.chassis.kernel.transaction.unit_of_work import AggregateRow
from services.chassis.process.transient import described
from services.chassis.replay.row import RowFold


@dataclass
class MemoryFold:
    """Rows by aggregate. Holds every row that a record has touched; feed it in the order of the log per partition.

    A record that cannot be handled stops its aggregates there, as it does in the live service, and is named in `stopped`.
    """

    domain: Domain
    left_out: Set[RecordId] = frozenset()
    """Records that were given up; as in every replay they do not count."""
    stopped: dict[Ref, str] = field(default_factory=dict)
    """Why an aggregate went no further, with the place of the record."""
    unread: int = 0
    """Records that are no events of ours, or of a version that this code does not know."""
    _folds: dict[Ref, RowFold] = field(default_factory=dict)

    @property
    def rows(self) -> Mapping[Ref, AggregateRow]:
        """What has been folded."""
        return {ref: fold.row for ref, fold in self._folds.items()}

    def finish(self) -> None:
        """Say which aggregates went no further because own events are missing: nothing more is fed."""
        self.stopped |= {ref: missing for ref, fold in self._folds.items() if (missing := fold.early.missing())}

    def feed(self, record: Record) -> None:
        """Fold one record. Never raises for what is in it."""
        place = record_id(record)
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
                fold = self._folds.setdefault(
                    ref, RowFold(self.domain, ref, AggregateRow(self.domain.aggregates[ref.aggregate].state()))
                )
                try:
                    fold.fold(event, record)
                except Exception as error:
                    self.stopped[ref] = f"{named(place)}: {described(error)}"
