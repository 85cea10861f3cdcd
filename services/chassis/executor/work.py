"""Queues attempts in a table and leases them to workers, so that a step runs on one worker at a time and outlives any worker.

A lease is a random token that expires on the database's clock. Every write of its holder checks the token under a row
lock: a worker whose lease was taken over can renew, release and conclude nothing. Locks: the attempt's row before the work row
wherever both are held (rule 4); claiming, renewing and releasing hold only the work row. The wait before a retry is the difference
of two times on the orchestrator's clock, added to this database's clock: the two clocks are never compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.envelope import Event
from schemas.jobs import StepCancelled, StepCancelRequested, StepCompleted, StepFailed, StepRequested
from services.chassis.executor.attempts import OPEN, AttemptState, ref_of
from services.chassis.kernel.aggregate import States
from services.chassis.kernel.effects import Notification
from services.chassis.postgres.transactions import Session

CHANNEL = "work"
"""NOTIFY channel; payloads are keys of attempts that were requested, cancelled or released."""

_ENQUEUE = text(
    """INSERT INTO work (key, priority, requested_at, not_before, cancel)
       SELECT key, priority, requested_at, clock_timestamp() + make_interval(secs => wait), cancel
       FROM unnest(CAST(:keys AS text[]), CAST(:priorities AS int[]), CAST(:requested_at AS timestamptz[]),
                   CAST(:waits AS double precision[]), CAST(:cancel AS boolean[])) AS new(key, priority, requested_at, wait, cancel)
       ON CONFLICT (key) DO UPDATE SET cancel = work.cancel OR EXCLUDED.cancel"""
)
_REMOVE = text("DELETE FROM work WHERE key = ANY(CAST(:keys AS text[]))")
_WAKE = text(f"SELECT pg_notify('{CHANNEL}', key) FROM unnest(CAST(:keys AS text[])) AS key")
_REQUEUE_OPEN = text(
    f"""INSERT INTO work (key, priority, requested_at, not_before, cancel)
        SELECT key, priority, requested_at, clock_timestamp() + (not_before - requested_at), status = 'cancelling' FROM attempt
        WHERE status IN ({", ".join(repr(status) for status in OPEN)}) ORDER BY key
        ON CONFLICT DO NOTHING"""
)
_CLAIM = text(
    """WITH next AS MATERIALIZED (
           SELECT key FROM work
           WHERE (not_before IS NULL OR not_before <= clock_timestamp())
             AND (leased_until IS NULL OR leased_until <= clock_timestamp())
             AND (cancel OR NOT (:only_cancelled OR key = ANY(CAST(:without AS text[]))))
           ORDER BY priority DESC, requested_at, key LIMIT 1 FOR UPDATE SKIP LOCKED)
       UPDATE work SET lease = :lease, leases = leases + 1,
                       leased_until = clock_timestamp() + make_interval(secs => :seconds)
       FROM next WHERE work.key = next.key RETURNING work.key"""
)
_RENEW = text(
    """UPDATE work SET leased_until = clock_timestamp() + make_interval(secs => :seconds)
       WHERE key = :key AND lease = :lease RETURNING cancel"""
)
_RELEASE = text("UPDATE work SET lease = NULL, leased_until = NULL WHERE key = :key AND lease = :lease RETURNING key")
_HOLDS = text("SELECT key FROM work WHERE key = :key AND lease = :lease FOR UPDATE")

_UNLEASED = text(
    """SELECT key FROM work
       WHERE key = ANY(CAST(:keys AS text[])) AND (leased_until IS NULL OR leased_until <= clock_timestamp())"""
)


@dataclass(frozen=True, slots=True)
class Lease:
    """The exclusive right to work on one attempt; it expires unless it is renewed."""

    key: str
    token: str


class WorkEffects:
    """Keeps the table `work` consistent with the attempts: a row for every open one, none for the others."""

    async def __call__(self, connection: Session, events: Sequence[Event], states: States) -> Sequence[Notification]:
        """Uses the states after all of `events`, so their number and order do not matter."""
        queued: list[tuple[str, AttemptState, StepRequested]] = []
        ended: list[str] = []
        for ref in sorted({ref_of(event.data) for event in events if isinstance(event.data, _RELEVANT)}):
            state = states.get(ref)
            if not isinstance(state, AttemptState) or state.requested is None:
                continue
            if state.outcome:
                ended.append(ref.key)
            else:
                queued.append((ref.key, state, state.requested))
        if ended:
            await connection.execute(_REMOVE, {"keys": ended})
        if queued:
            await connection.execute(
                _ENQUEUE,
                {
                    "keys": [key for key, _, _ in queued],
                    "priorities": [asked.priority for _, _, asked in queued],
                    "requested_at": [state.requested_at for _, state, _ in queued],
                    "waits": [_wait(state, asked) for _, state, asked in queued],
                    "cancel": [state.cancel_requested for _, state, _ in queued],
                },
            )
        return [(CHANNEL, key) for key, _, _ in queued]


def _wait(state: AttemptState, asked: StepRequested) -> float | None:
    """Seconds to wait between the orchestrator's request and the start; None for no wait."""
    if asked.not_before is None or state.requested_at is None:
        return None
    return (asked.not_before - state.requested_at).total_seconds()


_RELEVANT = (StepRequested, StepCancelRequested, StepCompleted, StepFailed, StepCancelled)


async def requeue_open(engine: AsyncEngine) -> None:
    """Queue every open attempt that has no work row, as after a lost database (rule 5); harmless at any time."""
    async with engine.begin() as connection:
        await connection.execute(_REQUEUE_OPEN)


async def claim(
    engine: AsyncEngine, token: str, seconds: float, *, without: Sequence[str] = (), only_cancelled: bool = False
) -> Lease | None:
    """Lease the next attempt that is due: highest priority first, then oldest; None where none waits.

    `without`: keys not to lease. `only_cancelled`: lease only cancelled attempts. A cancelled attempt needs no disk space to be ended,
    so `without` never excludes one.
    """
    given = {"lease": token, "seconds": seconds, "without": list(without), "only_cancelled": only_cancelled}
    async with engine.begin() as connection:
        key = (await connection.execute(_CLAIM, given)).scalar_one_or_none()
    return None if key is None else Lease(key, token)


async def unleased(engine: AsyncEngine, keys: Sequence[str]) -> set[str]:
    """Those of `keys` that still wait for a worker."""
    async with engine.connect() as connection:
        return set((await connection.execute(_UNLEASED, {"keys": list(keys)})).scalars())


async def renew(engine: AsyncEngine, lease: Lease, seconds: float) -> bool | None:
    """Renew the lease; returns whether a cancel was requested, None where the lease is lost."""
    async with engine.begin() as connection:
        renewed = await connection.execute(_RENEW, {"key": lease.key, "lease": lease.token, "seconds": seconds})
        cancel: bool | None = renewed.scalar_one_or_none()
    return cancel


async def release(engine: AsyncEngine, lease: Lease) -> None:
    """Release the lease, so that another worker can claim the attempt at once; does nothing where the lease is lost."""
    async with engine.begin() as connection:
        if (await connection.execute(_RELEASE, {"key": lease.key, "lease": lease.token})).first():
            await connection.execute(_WAKE, {"keys": [lease.key]})


async def holds(connection: AsyncConnection, lease: Lease) -> bool:
    """Whether the lease is still held; locks the work row, so the answer holds until the transaction ends."""
    return (await connection.execute(_HOLDS, {"key": lease.key, "lease": lease.token})).first() is not None


async def drop(connection: AsyncConnection, lease: Lease) -> None:
    """Delete the work row of an attempt that needs no worker any more."""
    await connection.execute(_REMOVE, {"keys": [lease.key]})
