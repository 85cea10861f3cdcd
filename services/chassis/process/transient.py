"""A fault of the surroundings (database or broker away) is not poison: it is waited out, with jitter, never counted."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import asyncpg
from aiokafka.errors import KafkaError
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from services.chassis.process.redaction import redacted

_RETRIED_STATES = ("08", "40", "53", "55P03", "57", "58")
"""SQLSTATE classes: connection, rollback (deadlock), resources, lock not available, operator intervention, system."""
_SESSION_STATES = ("25006", "26000", "42P05")
"""The session may only read (it began on a standby, or before a failover); its prepared statements are not where a pooler sends it."""
_STALE_PLANS = ("cached plan must not change result type", "cached statement plan is invalid")
"""A table changed under the session's prepared statements; in PostgreSQL's words and in asyncpg's."""

Loop = Callable[[asyncio.Event], Awaitable[None]]
"""A long loop that returns soon after the event is set; restarted with backoff when it raises."""


class ReadsOnly(Exception):
    """A session that may only read, where somebody has to write."""

    def __init__(self) -> None:
        super().__init__("the database only reads: it is a standby, or default_transaction_read_only is on")


class OtherDeployment(Exception):
    """Another deployment, with a database of its own, works on the same log: nothing may be consumed or decided here until it ends."""


def ends_session(error: BaseException) -> bool:
    """Whether `error` belongs to its session, so that the same succeeds on a new one: the connection is to be replaced."""
    if isinstance(error, DBAPIError):
        error = error.orig or error
    if isinstance(error, ReadsOnly | TimeoutError):
        return True
    return str(getattr(error, "sqlstate", None) or "") in _SESSION_STATES or any(
        words in str(error) for words in _STALE_PLANS
    )


def is_transient(error: BaseException) -> bool:
    """Whether `error` says that database or broker are away or busy, so that trying the same again can succeed."""
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
    """Any error in one line of at most `limit` characters: its type, and the first line of its text where it has one.

    No secret stands in it. Every log line, condition and answer that words an error takes it from here: asyncpg's and asyncio's time-outs have no text.
    """
    first = redacted(next((line for line in str(error).splitlines() if line.strip()), ""))
    name = type(error).__name__
    named = first.strip().startswith(name)  # aiokafka's errors name themselves
    return (f"{name}: {first.strip()}" if first and not named else first.strip() or name)[:limit]


class Backoff:
    """Waits that double from `first` to `limit` seconds, each shortened by a random part up to half (jitter)."""

    def __init__(self, first: float = 0.2, limit: float = 10.0) -> None:
        self._first, self._limit, self._tries = first, limit, 0

    def reset(self) -> None:
        """Start again from the first wait: something worked."""
        self._tries = 0

    def next(self) -> float:
        """Seconds to wait now."""
        self._tries += 1
        return pause_before(self._tries, self._first, self._limit)


def pause_before(attempt: int, first: float, limit: float) -> float:
    """Seconds to wait before the `attempt`th new try, from 1: see Backoff."""
    longest = min(limit, first * float(2 ** min(attempt - 1, 30)))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 (jitter, no secret)


async def wait_or_stop(stop: asyncio.Event, seconds: float) -> bool:
    """Wait so long, or until `stop` is set; returns whether it is set."""
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True


async def until_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """Do `work`, or end it where it stands when `stop` is set first. Raises what it fails with before."""
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
