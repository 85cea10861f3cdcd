"""Limits the connections of a server, and chooses which of them is closed for a new one.

A caller that sends its request slowly, or keeps an idle connection, occupies a place for as long as it likes; so does a
stream that is read. When all places are taken, the connection that has waited longest for its caller is closed: a caller
that sends a complete request is answered, even while a thousand others do not. If every place is processing a request, a
few more places remain for health checks. Streams count as busy for as long as they are read, so they may use only a part of
the places.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Literal, Protocol

from services.chassis.process.gc_tuning import collect
from services.chassis.process.logging import get_logger
from services.chassis.serving import metrics

Cause = Literal["slow header", "slow body", "unread answer", "made room", "no room"]
_log = get_logger(__name__)
_LOG_SECONDS = 10.0
SPARE = 16
"""Places beyond the limit, for health and metrics."""
_CROWD = 100
"""When half of this many streams have ended, the garbage collector runs a little later to free their transports."""
_SETTLED_SECONDS = 2.0


class Connection(Protocol):
    """The part of a connection that this module uses."""

    def give_up(self) -> None:
        """Close it at once."""


class Connections:
    """The places of one server. A connection that waits for its caller is also in the queue of those that may be closed."""

    def __init__(self, limit: int, streams: int) -> None:
        self.limit, self.streams = limit, streams
        self._open: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}
        self._streaming: dict[Connection, Callable[[], None]] = {}
        self._most = 0
        """The most concurrent streams since the last garbage collection."""
        self._ending = False
        self._given_up: Counter[Cause] = Counter()
        self._pending_log: asyncio.TimerHandle | None = None

    def admit(self, connection: Connection) -> Literal["all", "health only", "nothing"]:
        """Return what a new connection may request; one that waits for its caller may be closed for it."""
        if len(self._open) >= self.limit and self._waiting:
            oldest = next(iter(self._waiting))
            self.gone(oldest)
            self.note("made room")
            oldest.give_up()
        if len(self._open) >= self.limit + SPARE:
            self.note("no room")
            return "nothing"
        full = len(self._open) >= self.limit
        self._open.add(connection)
        return "health only" if full else "all"

    def waits(self, connection: Connection) -> None:
        """Record that the connection waits for its caller, unless it is gone."""
        if connection in self._open:
            self._waiting.setdefault(connection)
        self._no_stream(connection)

    def works(self, connection: Connection) -> None:
        """Record that the server processes a request of the connection."""
        self._waiting.pop(connection, None)

    def stream(self, connection: Connection, end: Callable[[], None]) -> bool:
        """Return whether the response may be a stream; `end` is called to end it when the server shuts down."""
        if len(self._streaming) >= self.streams:
            return False
        if connection in self._open:
            self._streaming[connection] = end
            self._count_streams()
        if self._ending:
            end()
        return True

    def end(self, connection: Connection) -> bool:
        """End the connection's stream at shutdown, and each that begins from now on; return whether it has one."""
        self._ending = True
        if (end := self._streaming.get(connection)) is not None:
            end()
        return end is not None

    def gone(self, connection: Connection) -> None:
        """Record that the connection is closed or about to be."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)
        self._no_stream(connection)

    def _no_stream(self, connection: Connection) -> None:
        if self._streaming.pop(connection, None) is not None:
            self._count_streams()

    def _count_streams(self) -> None:
        now = len(self._streaming)
        metrics.HTTP_STREAMS.set(now)
        self._most = max(self._most, now)
        if self._most >= _CROWD and now <= self._most // 2:
            self._most = now
            asyncio.get_running_loop().call_later(_SETTLED_SECONDS, collect)

    def note(self, cause: Cause) -> None:
        """Count a connection that was closed; the log reports all of them together."""
        metrics.HTTP_GIVEN_UP.labels(cause).inc()
        self._given_up[cause] += 1
        if self._pending_log is None:
            self._pending_log = asyncio.get_running_loop().call_later(_LOG_SECONDS, self._log_closed)

    def _log_closed(self) -> None:
        _log.warning(
            "http connections were closed early", open=len(self._open), limit=self.limit, **self._closed_by_cause()
        )
        self._given_up.clear()
        self._pending_log = None

    def _closed_by_cause(self) -> dict[str, int]:
        return {cause.replace(" ", "_"): number for cause, number in self._given_up.items()}
