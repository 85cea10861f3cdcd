"""Claims attempts by lease for one process, as many at once as fit its slots, and has a worker do each.

Claiming takes two transactions, so that locks are always taken in one order: the lease on the work row alone, then the
attempt with its StepStarted, under the token. An unexpected error never ends the dispatcher: it is logged, counted and retried.
"""

import asyncio
import os
import secrets
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from services.chassis.executor.account import Account
from services.chassis.executor.devices import device_reader, no_devices
from services.chassis.executor.disk_space import DiskSpace
from services.chassis.executor.errors import note_error
from services.chassis.executor.folders import account_of
from services.chassis.executor.host import Host
from services.chassis.executor.monitor import Monitor
from services.chassis.executor.needs import Need
from services.chassis.executor.retention import removers
from services.chassis.executor.runner import StepRunner
from services.chassis.executor.slots import Counted, Machine, Slots, Used, Whole, machine_name
from services.chassis.executor.statements import CHANNEL, REFERENCED_BY
from services.chassis.executor.waiting import first_of
from services.chassis.executor.work import Lease, Process, Room, claim, first_waiting, release, requeue_open, unleased
from services.chassis.executor.worker import CONDITION, Worker
from services.chassis.process.transient import Backoff, Loop, described, wait_or_stop

_POLL_SECONDS = 1.0


def worker_tasks(host: Host, runner: StepRunner, *, processes: int = 1, machine: Machine | None = None) -> list[Loop]:
    """The loops of an executor's workers, for `assemble(tasks=...)`; also registers the removers of their files.

    `processes`: how many do a step together, each on a GPU of its own where it needs one. `machine`: what attempts may use, if not what is here.
    """
    host.keep(removers(host.engine, host.settings, host.service))
    host.reference(REFERENCED_BY)
    if not host.settings.workers:
        return []
    host.health.requires = (*host.health.requires, CONDITION)
    room = DiskSpace(host.settings, host.service, host.health)
    devices = device_reader() if machine is None else no_devices
    monitor = Monitor(host.service, devices, here=machine is None)
    whole = Whole.of(host.settings) if machine is None else None
    machine = machine or Machine.of(host.settings, len(devices()) // processes, processes)
    slots = Slots(machine, devices, processes, whole)
    return [room.run, monitor.run, Dispatcher(host, Worker(host, runner, room, monitor), room, slots).run]


class Claimed(NamedTuple):
    """An attempt that was claimed and not begun yet."""

    lease: Lease
    until: float
    """When the lease ends, unless it is renewed, on the clock of the event loop."""
    held: int
    """The descriptor of its line in the account of the machine."""


class Dispatcher:
    """Claims attempts one after the other; `settings.workers` is the most that run at once, whatever fits."""

    def __init__(self, host: Host, worker: Worker, room: DiskSpace, slots: Slots) -> None:
        self._host, self._worker, self._room, self._slots = host, worker, room, slots
        self._seconds = host.settings.lease_seconds
        self._running: set[asyncio.Task[None]] = set()
        self._process = Process(machine_name(), secrets.token_hex(8), self._room_beside)
        self._account = Account(account_of(host.settings.home, machine_name()), host.service)
        self._others: Sequence[Counted] = ()
        self._ended = asyncio.Event()
        """Set when an attempt has ended, so that its slots are free."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; then wait until the running attempts have written their checkpoints and released their leases."""
        backoff = Backoff()
        requeued = False
        with self._host.notifications.subscribe(CHANNEL) as woken:
            while not stop.is_set():
                self._ended.clear()
                try:
                    if not requeued:
                        await requeue_open(self._host.engine)
                        requeued = True
                    found = await self._look(stop)
                    backoff.reset()
                except Exception as error:
                    self._note(error)
                    await wait_or_stop(stop, backoff.next())
                else:
                    if not found:
                        await first_of(stop.wait(), self._ended.wait(), woken.wait(_POLL_SECONDS))
        if self._running:
            await asyncio.wait(self._running)

    async def _look(self, stop: asyncio.Event) -> bool:
        """Claim one attempt and begin it; False where none fits now."""
        if len(self._running) >= self._host.settings.workers:
            return False
        if refused := self._room.refused:
            self._room.forget(set(refused) - await unleased(self._host.engine, refused))
        without = await self._room.look()
        first = await first_waiting(self._host.engine, without, self._room.short)
        if first is None:  # so that idle processes leave the account to those that have work
            await self._account.aside(partial(self._account.wish, None))
            self._host.health.report(CONDITION, True)
            return False
        await self._slots.look()
        claimed = await self._claimed(without, first)
        if claimed is None:
            return False
        doing = asyncio.create_task(self._do(claimed, stop), name=f"attempt {claimed.lease.key}")
        self._running.add(doing)
        doing.add_done_callback(self._done)
        await asyncio.sleep(0)  # it takes its slots before the next claim
        return True

    async def _claimed(self, without: Sequence[str], first: Need) -> Claimed | None:
        """Claim an attempt and enter it into the account of the machine; if none fits, let the other services know what waits here."""
        async with self._account.alone():
            self._others = await self._account.aside(self._account.others)
            # A lease is counted from its claim; before it, this process may have waited for the account.
            until = asyncio.get_running_loop().time() + self._seconds
            lease = await claim(
                self._host.engine,
                secrets.token_hex(16),
                self._seconds,
                room=self._process,
                without=without,
                only_cancelled=self._room.short,
            )
            self._host.health.report(CONDITION, True)
            if lease is None:
                await self._account.aside(partial(self._account.wish, self._slots.counted(first)))
                return None
            return Claimed(lease, until, await self._entered(lease))

    async def _entered(self, lease: Lease) -> int:
        """Enter what was claimed into the account; return the descriptor of its line. A lease that cannot be entered is released."""
        try:
            return await self._account.aside(partial(self._account.take, self._slots.counted(lease.need, lease.gpus)))
        except BaseException:
            await release(self._host.engine, lease)
            raise

    def _room_beside(self, others: Sequence[Used]) -> Room:
        return Room(self._slots.machine, self._slots.free(others, self._others), self._slots.device_mb)

    async def _do(self, claimed: Claimed, stop: asyncio.Event) -> None:
        lease = claimed.lease
        with self._slots.taken(lease.need, lease.gpus, claimed.held) as place:
            try:
                await self._worker.work(lease, claimed.until, place, stop)
            except Exception as error:
                self._note(error)
                await wait_or_stop(stop, _POLL_SECONDS)
            finally:
                os.close(claimed.held)

    def _done(self, doing: "asyncio.Task[None]") -> None:
        self._running.discard(doing)
        self._ended.set()

    def _note(self, error: Exception) -> None:
        note_error(self._host.service, "worker interrupted", error)
        self._host.health.report(CONDITION, False, described(error))
