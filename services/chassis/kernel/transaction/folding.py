"""Folds events into rows in memory: the one step that a live batch, a rebuild, the rebuild of one row and a fold as of a moment share.

Rule 1 of docs/architecture.md: an own event that comes back is applied when its sequence number is the next, and skipped when it is lower or
equal (its offset is stamped all the same); `numbering` says what a higher number means. Two things differ between those who fold, and
each is a value that they pass: whether own events may wait for their predecessors (`early`), and whether every touched row is there
(`elsewhere`).
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

from schemas.envelope import Event
from services.chassis.kernel.aggregate import Domain, Ref, is_own
from services.chassis.kernel.numbering import EarlyEvents, Elsewhere, Numbered, gap, numbered
from services.chassis.kernel.records import Logged
from services.chassis.kernel.transaction.aggregate_row import AggregateRow


class Incoming(NamedTuple):
    """A decoded record with its position in the log."""

    event: Event
    logged: Logged


@dataclass
class FoldedRows:
    """Rows, and the fold of events into them."""

    domain: Domain
    rows: dict[Ref, AggregateRow]
    _: KW_ONLY
    early: EarlyEvents | None = None
    """Where a replay holds own events until their predecessors are read; None in a live service, which raises SequenceGap."""
    elsewhere: Elsewhere | None = None
    """The sequences of aggregates that are not in `rows`, for a fold of some rows only. None: `rows` holds every row that may be touched."""
    skipped: int = 0
    """Number of own events that were already known, and of producers' duplicates."""

    def take(self, incoming: Incoming) -> Sequence[Ref]:
        """Fold one record; returns the aggregates that it touches, none if it is a known own event.

        Raises SequenceGap, OtherWriter or a domain error.
        """
        refs, known = self.touched(incoming.event), self.skipped
        self._take(incoming.event, refs, incoming.logged)
        self._stamp(refs, incoming.logged)
        return refs if self.skipped == known else ()

    def pass_over(self, incoming: Incoming) -> None:
        """Skip a producer's duplicate: only the offsets of the rows it touches change."""
        self.skipped += 1
        self._stamp(self.touched(incoming.event), incoming.logged)

    def fold_ahead(self, event: Event) -> None:
        """Fold an own event that lies beyond the position, without an offset, as when it was decided. Raises SequenceGap, OtherWriter."""
        if refs := self.touched(event):
            self._take(event, refs, None)

    def touched(self, event: Event) -> Sequence[Ref]:
        """The aggregates of `rows` that `event` touches."""
        refs = self.domain.touches(event)
        return refs if self.elsewhere is None else tuple(ref for ref in refs if ref in self.rows)

    def _stamp(self, refs: Sequence[Ref], logged: Logged) -> None:
        for ref in refs:
            self.rows[ref].stamp(logged)

    def _take(self, event: Event, refs: Sequence[Ref], logged: Logged | None) -> None:
        owner = self._owner(event, refs)
        if owner is None:
            self._evolve(event, refs, logged, None)
            return
        row = self.rows.get(owner)
        match self._numbered(owner, event, logged):
            case Numbered.KNOWN:
                self.skipped += 1
            case Numbered.NEXT:
                self._evolve(event, refs, logged, row)
                while self.early and row is not None and (next_one := self.early.after(owner, row.sequence)):
                    self._evolve(next_one.event, self.touched(next_one.event), next_one.logged, row)
            case Numbered.EARLY if self.early is not None:
                self.early.hold(owner, self.rows[owner].sequence, event, logged)
            case Numbered.EARLY:
                raise gap(owner, self.rows[owner].sequence, event)

    def _numbered(self, owner: Ref, event: Event, logged: Logged | None) -> Numbered:
        if self.elsewhere is not None and owner not in self.rows:
            return self.elsewhere.numbered(event)
        row = self.rows[owner]
        return numbered(owner, row.sequence, row.own_ids, event, logged)

    def _owner(self, event: Event, refs: Sequence[Ref]) -> Ref | None:
        """The aggregate whose sequence `event` belongs to; None for an event of others, or one that touches nothing."""
        return self.domain.owner(event) if refs and is_own(self.domain, event) else None

    def _evolve(self, event: Event, refs: Sequence[Ref], logged: Logged | None, owner: AggregateRow | None) -> None:
        """Fold `event` into the rows `refs`, and count it in its owner's row, if that is here. Every fold of an event is this one."""
        for ref in refs:
            self.rows[ref].fold(self.domain, ref, event, logged)
        if owner is not None:
            owner.number(event)
