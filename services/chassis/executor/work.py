"""Queues attempts in a table and leases them to workers, so that a step runs on one worker at a time and outlives any worker.

A lease is a random token that expires on the database's clock. Every write of its holder checks the token under a row
lock: a worker whose lease was taken over can renew, release and conclude nothing. Locks: the attempt's row before the work row
wherever both are held (rule 4); claiming, renewing and releasing hold only the work row. The wait before a retry is the difference
of two times on the orchestrator's clock, added to this database's clock: the two clocks are never compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.envelope import Event
from schemas.jobs import (
    StepCancelled,
    StepCancelRequested,
    StepCheckpointRequested,
    StepCompleted,
    StepFailed,
    StepPriorityChanged,
    StepRequested,
)
from services.chassis.executor import statements
from services.chassis.executor.attempts import AttemptState, ref_of
from services.chassis.executor.needs import NOTHING, Need, need_of
from services.chassis.executor.slots import Free, Machine, Used
from services.chassis.kernel.aggregate import States
from services.chassis.kernel.effects import Notification
from services.chassis.postgres.transactions import Session


@dataclass(frozen=True, slots=True)
class Lease:
    """The exclusive right to work on one attempt; it expires unless it is renewed."""

    key: str
    token: str
    need: Need = NOTHING
    gpus: tuple[int, ...] = ()
    """The numbers of the GPUs that it counts on."""


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
            needs = [need_of(asked) for _, _, asked in queued]
            await connection.execute(
                statements.ENQUEUE,
                {
                    "keys": [key for key, _, _ in queued],
                    "priorities": [state.priority for _, state, _ in queued],
                    "requested_at": [state.requested_at for _, state, _ in queued],
                    "waits": [_wait(state, asked) for _, state, asked in queued],
                    "cancel": [state.cancel_requested for _, state, _ in queued],
                    "requesters": [asked.requester for _, _, asked in queued],
                    "begun": [bool(asked.results) or asked.attempt > 1 for _, _, asked in queued],
                    "cores": [need.cores for need in needs],
                    "memory_mb": [need.memory_mb for need in needs],
                    "device_mb": [need.device_mb for need in needs],
                },
            )
        return [(statements.CHANNEL, key) for key, _, _ in queued]


def _wait(state: AttemptState, asked: StepRequested) -> float | None:
    """Return the seconds to wait between the orchestrator's request and the start; None for no wait."""
    if asked.not_before is None or state.requested_at is None:
        return None
    return (asked.not_before - state.requested_at).total_seconds()


_RELEVANT = (
    StepRequested,
    StepPriorityChanged,
    StepCheckpointRequested,
    StepCancelRequested,
    StepCompleted,
    StepFailed,
    StepCancelled,
)


async def requeue_open(engine: AsyncEngine) -> None:
    """Queue every open attempt that has no work row, as after a lost database (rule 5); harmless at any time."""
    async with engine.begin() as connection:
        await connection.execute(statements.REQUEUE_OPEN)


@dataclass(frozen=True, slots=True)
class Room:
    """What a claim may use of a machine."""

    machine: Machine
    free: Free
    device_mb: int = 0
    """What a step of unknown need counts on a GPU."""


WHOLE = Room(Machine(1, 1, 1, 1), Free(1, 1, None))
"""An empty machine: every attempt fits it."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process that claims work on a machine which it shares with others of its service."""

    host: str
    """Names the machine."""
    name: str
    """Names the process, and no other one ever."""
    room: Callable[[Sequence[Used]], Room]
    """Returns what a claim may use where these attempts of other processes run."""


_CONSIDERED = 16
"""The most attempts that one claim considers."""
_PASSES = 8
"""So often is an attempt that does not fit passed over; then nothing after it is leased before it."""


async def claim(
    engine: AsyncEngine,
    token: str,
    seconds: float,
    *,
    room: Room | Process = WHOLE,
    without: Sequence[str] = (),
    only_cancelled: bool = False,
) -> Lease | None:
    """Lease the next attempt that is due and fits `room`; None where none does. See `statements.CLAIM` for the order.

    Of the processes of one machine one claims at a time, so that it counts what the others have claimed. `without`: keys not to lease.
    `only_cancelled`: lease only cancelled attempts. A cancelled attempt needs neither disk space nor a slot to be ended, so nothing ever
    excludes one.
    """
    async with engine.begin() as connection:
        if isinstance(room, Process):
            await connection.execute(statements.ALONE_ON_HOST, {"host": room.host})
            found = await connection.execute(statements.OTHERS_ON_HOST, {"host": room.host, "process": room.name})
            free = room.room([Used(Need(*row[:3]), tuple(row[3])) for row in found])
            given = claim_values(token, seconds, free, room.host, room.name)
        else:
            given = claim_values(token, seconds, room)
        given |= {"without": list(without), "only_cancelled": only_cancelled}
        row = (await connection.execute(statements.CLAIM, given)).first()
    return None if row is None else Lease(row[0], token, Need(*row[1:4]), tuple(row[4]))


def claim_values(token: str, seconds: float, room: Room, host: str = "", process: str = "") -> dict[str, Any]:
    """Return the values of `statements.CLAIM` that say what is free, and the lease."""
    machine, free = room.machine, room.free
    return {
        "lease": token, "seconds": seconds, "cores": free.cores, "memory_mb": free.memory_mb, "device_mb": free.device_mb,
        "host": host, "process": process, "gpus": list(free.gpus),
        "all_cores": machine.cores, "all_memory_mb": machine.memory_mb, "all_device_mb": room.device_mb,
        "step_cores": machine.step_cores, "step_memory_mb": machine.step_memory_mb,
        "considered": _CONSIDERED, "passes": _PASSES,
    }  # fmt: skip


async def first_waiting(engine: AsyncEngine, without: Sequence[str], only_cancelled: bool) -> Need | None:
    """Return what the next due attempt needs that `claim` would consider; None where none waits."""
    given = {"without": list(without), "only_cancelled": only_cancelled}
    async with engine.connect() as connection:
        row = (await connection.execute(statements.FIRST_WAITING, given)).first()
    return None if row is None else Need(*row)


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


async def checkpoint_wanted(engine: AsyncEngine, lease: Lease) -> str | None:
    """Return the id of the latest request for a checkpoint of the attempt; None for none."""
    async with engine.connect() as connection:
        wanted: str | None = await connection.scalar(statements.CHECKPOINT_WANTED, {"key": lease.key})
    return wanted


async def release(engine: AsyncEngine, lease: Lease) -> None:
    """Release the lease, so that another worker can claim the attempt at once; does nothing where the lease is lost."""
    async with engine.begin() as connection:
        if (await connection.execute(statements.RELEASE, {"key": lease.key, "lease": lease.token})).first():
            await connection.execute(statements.WAKE, {"keys": [lease.key]})


async def used_seconds(connection: AsyncConnection, lease: Lease) -> float | None:
    """Return for how long workers have held the attempt so far; None where the lease is lost. Locks the work row."""
    held = await connection.execute(statements.HOLDS, {"key": lease.key, "lease": lease.token})
    seconds: float | None = held.scalar_one_or_none()
    return seconds


async def drop(connection: AsyncConnection, lease: Lease) -> None:
    """Delete the work row of an attempt that needs no worker any more."""
    await connection.execute(statements.REMOVE, {"keys": [lease.key]})
