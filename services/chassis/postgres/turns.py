"""Runs work that one process of a service does at a time, again and again, by an advisory lock."""

import asyncio
from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncEngine

from services.chassis.postgres.exclusive import Exclusive, exclusive
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.process.transient import Backoff, wait_or_stop

_POLL_SECONDS = 0.5
_STANDBY_SECONDS = 5.0


async def in_turn(
    engine: AsyncEngine, lock: int, once: Callable[[Exclusive], Awaitable[bool | None]], stop: asyncio.Event,
    failures: FailureLog, failure: str,
) -> None:  # fmt: skip
    """Do the work until `stop`: at once again if it returns that there is more, else half a second later.

    An error of the work is logged as `failure`; it is done again after a pause, by whichever process has the lock then.
    """
    backoff = Backoff()
    while not stop.is_set():
        try:
            async with exclusive(engine) as session:
                while not stop.is_set() and not await session.take(lock):
                    await wait_or_stop(stop, _STANDBY_SECONDS)
                while not stop.is_set():
                    more = await once(session)
                    backoff.reset()
                    failures.recovered()
                    await wait_or_stop(stop, 0.0 if more else _POLL_SECONDS)
        except Exception as error:
            failures.failed(failure, error)
            await wait_or_stop(stop, backoff.next())
