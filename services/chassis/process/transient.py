"""Recognises transient errors (database or broker away), which are retried with jitter and never counted as poison."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import asyncpg
from aiokafka.errors import KafkaError
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from services.chassis.process.redaction import redacted

_RETRIED_STATES = (
    "08", "25P", "28", "3D", "3F", "40", "42501", "42703", "42P01", "53", "55P03", "57", "58",
)  # fmt: skip
"""SQLSTATEs that no record causes: connection, time-out of a transaction, no access, missing database, missing schema, rollback
(deadlock), missing right, missing column, missing table, resources, lock not available, operator intervention, system. A right,
table or column may be missing for a while, during a restore or a change of roles; then it is no fault of the records that come."""
_SESSION_STATES = ("25006", "26000", "42P05")
"""The session is read-only (begun on a standby, or before a failover), or a pooler lost its prepared statements."""
_STALE_PLANS = ("cached plan must not change result type", "cached statement plan is invalid")
"""A table changed after the session prepared its statements; the texts are PostgreSQL's and asyncpg's."""
_BROKEN_PROTOCOL = "cannot switch to state"
"""asyncpg's text if the server has sent its reason to end the session, and the end itself has not arrived yet."""

Loop = Callable[[asyncio.Event], Awaitable[None]]
"""A long loop that returns soon after the event is set; restarted with backoff when it raises."""


class ReadsOnly(Exception):
    """The session is read-only, but a write is needed."""

    def __init__(self) -> None:
        super().__init__("the database is read-only: it is a standby, or default_transaction_read_only is on")


class OtherDeployment(Exception):
    """Another deployment with its own database uses the same log; this one may not consume or decide until that one
    ends."""


def ends_session(error: BaseException) -> bool:
    """Return whether the session causes `error`, so that a retry on a new connection succeeds: the connection must be
    replaced."""
    if isinstance(error, DBAPIError):
        error = error.orig or error
    if isinstance(error, ReadsOnly | TimeoutError):
        return True
    if str(getattr(error, "sqlstate", None) or "") in _SESSION_STATES:
        return True
    kind, words = (type(error.__cause__ or error), str(error.args[0]) if error.args else "")
    if issubclass(kind, asyncpg.FeatureNotSupportedError):
        return any(plan in words for plan in _STALE_PLANS)
    return issubclass(kind, asyncpg.InternalClientError) and _BROKEN_PROTOCOL in words


def is_transient(error: BaseException) -> bool:
    """Return whether `error` means that the database or the broker is unreachable or busy, so that a retry can succeed."""
    if isinstance(
        error, (OSError, asyncio.TimeoutError, KafkaError, PoolTimeoutError, DisconnectionError, OtherDeployment)
    ):
        return True
    if ends_session(error):
        return True
    if isinstance(error, DBAPIError):
        state = str(getattr(error.orig, "sqlstate", None) or "")
        return (
            error.connection_invalidated
            or isinstance(error, (OperationalError, InterfaceError))
            or state.startswith(_RETRIED_STATES)
        )
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate or "").startswith(_RETRIED_STATES)
    return isinstance(error, asyncpg.InterfaceError)


def described(error: BaseException, limit: int = 500) -> str:
    """Describe any error in one line of at most `limit` characters: its type, and the first line of its text if it has one.

    Secrets are removed. Every log line, condition and HTTP response that describes an error uses this, because the
    time-outs of asyncpg and asyncio have no text.
    """
    first = redacted(next((line for line in str(error).splitlines() if line.strip()), ""))
    name = type(error).__name__
    named = first.strip().startswith(name)  # the text of aiokafka's errors begins with their name
    return (f"{name}: {first.strip()}" if first and not named else first.strip() or name)[:limit]


class Backoff:
    """Waits that double from `first` to `limit` seconds, each shortened by a random part up to half (jitter)."""

    def __init__(self, first: float = 0.2, limit: float = 10.0) -> None:
        self._first, self._limit, self._tries = first, limit, 0

    def reset(self) -> None:
        """Start again from the first wait, after a success."""
        self._tries = 0

    def next(self) -> float:
        """Return the next wait, in seconds."""
        self._tries += 1
        return pause_before(self._tries, self._first, self._limit)


def pause_before(attempt: int, first: float, limit: float) -> float:
    """Return the seconds to wait before retry number `attempt`, from 1; see Backoff."""
    longest = min(limit, first * float(2 ** min(attempt - 1, 30)))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 (jitter, no secret)


async def wait_or_stop(stop: asyncio.Event, seconds: float) -> bool:
    """Wait `seconds`, or until `stop` is set; return whether it is set."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True


async def until_stopped(work: Coroutine[Any, Any, object], stop: asyncio.Event) -> None:
    """Run `work`, and cancel it if `stop` is set first. Raises the error with which `work` fails before that."""
    task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if ended := not task.done():
            task.cancel()
            await asyncio.wait([task])
    if not ended:
        task.result()
