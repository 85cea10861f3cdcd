"""Passes committed own events to the relay of the same process in memory, so that it need not read them from the outbox.

The outbox stays the truth: what is passed here may be dropped at any time, and the relay decides whether it may send it without
reading (`relay.outbox`). Nothing is passed before its transaction has committed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from services.chassis.kernel.store import record_headers

MOST_ROWS = 5000
"""If more rows wait, they are dropped, and the relay reads them from the outbox."""

Headers = list[tuple[str, bytes]]


@dataclass(slots=True)
class OutboxRow:
    """An own event in the outbox."""

    position: int
    topic: str
    key: str
    payload: str
    attributes: tuple[str | None, ...]
    """The values of `HEADER_COLUMNS`."""
    _record: tuple[bytes, Headers] | None = None

    @classmethod
    def read(cls, row: Any) -> Self:
        """Return a row that the relay read: position, topic, key, payload, then the attributes."""
        position, topic, key, payload, *attributes = row
        return cls(position, topic, key, payload, tuple(attributes))

    @property
    def record(self) -> tuple[bytes, Headers]:
        """Value and headers of its record in Kafka, encoded once."""
        if self._record is None:
            self._record = self.payload.encode(), record_headers(self.attributes)
        return self._record


class Handover:
    """The rows that committed transactions of this process wrote and its relay has not taken yet."""

    def __init__(self) -> None:
        self._wake: Callable[[], None] | None = None
        self._groups: list[Sequence[OutboxRow]] = []
        self._rows = 0

    @property
    def relays(self) -> bool:
        """Whether the relay of this process is the active one, which `put` wakes."""
        return self._wake is not None

    @contextmanager
    def taken_by(self, wake: Callable[[], None]) -> Iterator[None]:
        """The relay of this process is the active one while the block runs; `wake` is called after each transaction."""
        self._wake = wake
        try:
            yield
        finally:
            self._wake = None
            self.take()

    def put(self, rows: Sequence[OutboxRow]) -> None:
        """Pass the rows of one committed transaction, in order."""
        if self._wake is None or not rows:
            return
        self._rows += len(rows)
        if self._rows <= MOST_ROWS:
            self._groups.append(rows)
        else:
            self._groups.clear()
        self._wake()

    def take(self) -> Sequence[Sequence[OutboxRow]] | None:
        """Remove and return all rows, by transaction; None if there were too many, so that the outbox has to be read."""
        groups, rows = self._groups, self._rows
        self._groups, self._rows = [], 0
        return groups if rows <= MOST_ROWS else None
