"""Decides where to read the outbox from, and when its backlog shows that nobody relays. Pure."""

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

    def seen(self, position: int, *, more: bool = False) -> None:
        """Rows were read up to `position`; they are sent and removed, or their keys are blocked.

        `more`: there are rows after it.
        """
        self._highest = max(self._highest, position)
        self._left_after = position if more else None
