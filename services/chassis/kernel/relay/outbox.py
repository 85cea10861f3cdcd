"""Decides where to read the outbox from, what may be sent without reading, and when its backlog shows that nobody relays. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

_OLD_SECONDS = 30.0
"""Age of the oldest outbox row from which a standby reports that the active relay does not send."""


@dataclass(frozen=True, slots=True)
class OutboxBacklog:
    """Number and age of the rows in the outbox."""

    rows: int
    first: int | None
    """Position of the oldest row."""
    seconds: float
    """Age of the oldest row, by the database's clock."""

    def overdue(self, before: "OutboxBacklog | None") -> str | None:
        """Return the message that no process seems to relay, if the oldest row is old and was the oldest `before` too;
        otherwise None."""
        if before is None or self.first is None or self.first != before.first or self.seconds < _OLD_SECONDS:
            return None
        return f"another process relays, but {self.rows} events wait in the outbox, the oldest for {self.seconds:.0f} s"


@dataclass
class OutboxCursor:
    """Decides where to read the outbox from, since scanning over removed rows costs more with each row until PostgreSQL vacuums.

    Every `whole_seconds` the whole outbox is read, in between only rows after a floor. Rows get their positions when they are
    inserted and become visible when their transaction commits, so the floor only rises over positions whose transactions have
    all ended: otherwise a later event of a key would be seen, and sent, before an earlier one.

    For the same reason rows that this process committed itself are sent without reading only if they follow on `_complete`.
    """

    whole_seconds: float = 1.0
    """Time between two reads of the whole outbox."""
    _whole_at: float = 0.0
    _floor: int = 0
    _highest: int = 0
    _next: tuple[int, int] | None = None
    """The next floor, and the first transaction id that was not assigned when rows up to it had been read."""
    _left_after: int | None = None
    """Where the latest read ended, if it reached its row limit: some rows may lie below the floor that rose before it."""
    _complete: int = 0
    """Every row up to this position that is committed or still will be is known: it was read or handed over, or its key is blocked."""
    _run: tuple[int, int] = (0, 0)
    """First and last position of the latest known rows without a gap. A row may still appear in the gap before them."""

    def is_due(self, now: float) -> bool:
        """Whether the whole outbox is to be read at `now`, seconds."""
        return now >= self._whole_at

    def start_whole(self, now: float, xmin: int, xmax: int) -> int:
        """The position after which to read: 0, for all. `xmin`, `xmax`: the lowest transaction id still active, and the first not
        assigned, by a snapshot of now (https://www.postgresql.org/docs/current/functions-info.html)."""
        self._whole_at = now + self.whole_seconds
        if self._next is not None and xmin >= self._next[1]:
            self._floor, self._next = self._next[0], None
        if self._next is None:
            self._next = self._highest, xmax
        return 0

    @property
    def floor(self) -> int:
        """The position after which to read between two whole reads."""
        return self._floor if self._left_after is None else min(self._floor, self._left_after)

    def seen(self, positions: Sequence[int], *, more: bool = False) -> None:
        """The rows at `positions` were read, in order; they are sent, or their keys are blocked. `more`: there are rows after them."""
        for position in positions:
            self._highest = max(self._highest, position)
            first, last = self._run
            if position == self._complete + 1:
                self._raise_complete(position)
            elif position > self._complete:
                self._run = (first, position) if position == last + 1 else (position, position)
        self._left_after = positions[-1] if more else None
        if not more:
            self._raise_complete(self._floor)

    def follow(self, positions: Sequence[int]) -> bool:
        """Whether the rows at `positions`, which one transaction committed, may be sent without reading; they then count as read.

        They may if no earlier row can be unknown, so that none of their keys has one.
        """
        count = len(positions)
        if self._left_after is not None or positions[0] != self._complete + 1 or positions[-1] != self._complete + count:
            return False
        self.seen(positions)
        return True

    def _raise_complete(self, known: int) -> None:
        """Every row up to `known` is known, and with them those of the run if it follows on."""
        self._complete = max(self._complete, known)
        if self._run[0] <= self._complete + 1:
            self._complete = max(self._complete, self._run[1])
