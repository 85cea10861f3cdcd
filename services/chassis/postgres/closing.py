"""Closes a session of asyncpg together with the statement that it may still run on the server."""

import asyncio

from services.chassis.postgres.urls import Connection

_SECONDS = 2.0


async def close(connection: Connection) -> None:
    """Close the session, and have the server cancel its statement; waits at most two seconds, and goes on when it is cancelled.

    `Connection.terminate` alone drops the request to cancel, which asyncpg sends after a time-out or a cancellation. A server
    process that works or waits for a lock does not notice that its client is gone: the statement, the session and all locks
    of the transaction would stay.
    """
    await asyncio.shield(asyncio.ensure_future(_close(connection)))


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=_SECONDS)
    except Exception:  # the server does not answer, or the session has ended
        connection.terminate()
