"""Queues attempts in a table and leases them to workers, so that a step runs on one worker at a time and outlives any worker.

A lease is a random token that expires on the database's clock. Every write of its holder checks the token under a row
lock: a worker whose lease was taken over can renew, release and conclude nothing. Locks: the attempt's row before the work row
wherever both are held (rule 4); claiming, renewing and releasing hold only the work row. The wait before a retry is the difference
of two times on the orchestrator's clock, added to this database's clock: the two clocks are never compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.envelope import Event
from schemas.jobs import StepCancelled, StepCancelRequested, StepCompleted, StepFailed, StepRequested
from services.chassis.executor import statements
from services.chassis.executor.attempts import AttemptState, ref_of
from services.chassis.kernel.aggregate import States
from services.chassis.kernel.effects import Notification
from services.chassis.postgres.transactions import Session


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
            await connection.execute(statements.REMOVE, {"keys": ended})
        if queued:
            await connection.execute(
                statements.ENQUEUE,
                {
                    "keys": [key for key, _, _ in queued],
                    "priorities": [asked.priority for _, _, asked in queued],
                    "requested_at": [state.requested_at for _, state, _ in queued],
                    "waits": [_wait(state, asked) for _, state, asked in queued],
                    "cancel": [state.cancel_requested for _, state, _ in queued],
                },
            )
        return [(statements.CHANNEL, key) for key, _, _ in queued]


def _wait(state: AttemptState, asked: StepRequested) -> float | None:
    """Return the seconds to wait between the orchestrator's request and the start; None for no wait."""
    if asked.not_before is None or state.requested_at is None:
        return None
    return (asked.not_before - state.requested_at).total_seconds()


_RELEVANT = (StepRequested, StepCancelRequested, StepCompleted, StepFailed, StepCancelled)


async def requeue_open(engine: AsyncEngine) -> None:
    """Queue every open attempt that has no work row, as after a lost database (rule 5); harmless at any time."""
    async with engine.begin() as connection:
        await connection.execute(statements.REQUEUE_OPEN)


async def claim(
    engine: AsyncEngine, token: str, seconds: float, *, without: Sequence[str] = (), only_cancelled: bool = False
) -> Lease | None:
    """Lease the next attempt that is due: highest priority first, then oldest; None where none waits.

    `without`: keys not to lease. `only_cancelled`: lease only cancelled attempts. A cancelled attempt needs no disk space to be ended,
    so `without` never excludes one.
    """
    given = {"lease": token, "seconds": seconds, "without": list(without), "only_cancelled": only_cancelled}
    async with engine.begin() as connection:
        key = (await connection.execute(statements.CLAIM, given)).scalar_one_or_none()
    return None if key is None else Lease(key, token)


async def unleased(engine: AsyncEngine, keys: Sequence[str]) -> set[str]:
    """Return those of `keys` that still wait for a worker."""
    async with engine.connect() as connection:
        return set((await connection.execute(statements.UNLEASED, {"keys": list(keys)})).scalars())


async def renew(engine: AsyncEngine, lease: Lease, seconds: float) -> bool | None:
    """Renew the lease; returns whether a cancel was requested, None where the lease is lost."""
    async with engine.begin() as connection:
        renewed = await connection.execute(statements.RENEW, {"key": lease.key, "lease": lease.token, "seconds": seconds})
        cancel: bool | None = renewed.scalar_one_or_none()
    return cancel


async def release(engine: AsyncEngine, lease: Lease) -> None:
    """Release the lease, so that another worker can claim the attempt at once; does nothing where the lease is lost."""
    async with engine.begin() as connection:
        if (await connection.execute(statements.RELEASE, {"key": lease.key, "lease": lease.token})).first():
            await connection.execute(statements.WAKE, {"keys": [lease.key]})


async def holds(connection: AsyncConnection, lease: Lease) -> bool:
    """Return whether the lease is still held; locks the work row, so the answer holds until the transaction ends."""
    return (await connection.execute(statements.HOLDS, {"key": lease.key, "lease": lease.token})).first() is not None


async def drop(connection: AsyncConnection, lease: Lease) -> None:
    """Delete the work row of an attempt that needs no worker any more."""
    await connection.execute(statements.REMOVE, {"keys": [lease.key]})
