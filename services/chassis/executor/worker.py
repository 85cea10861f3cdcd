"""Has a runner do an attempt while its lease is kept, and announces the outcome once.

A worker that cannot keep its lease has lost the attempt to another worker. `dispatcher.py` claims the leases.
"""

import asyncio
import os
import shutil
import socket
from functools import partial

from structlog.contextvars import bound_contextvars

from schemas.progress import StepProgressed
from services.chassis.executor import metrics
from services.chassis.executor.disk_space import DiskSpace, folders_of
from services.chassis.executor.errors import note_error, unexpected
from services.chassis.executor.folders import checkpoints_of
from services.chassis.executor.host import Host
from services.chassis.executor.lease_keeper import LeaseKeeper
from services.chassis.executor.monitor import Monitor
from services.chassis.executor.runner import (
    Failed,
    Outcome,
    Postponed,
    StepRunner,
    Stopped,
    StopReason,
    Work,
    WorkContext,
)
from services.chassis.executor.slots import Allocation
from services.chassis.executor.statements import CHANNEL
from services.chassis.executor.transactions import Energy, Held, begin, finish
from services.chassis.executor.waiting import first_of
from services.chassis.executor.work import Lease, release
from services.chassis.kafka.publisher import outside_event
from services.chassis.postgres.notifications import Subscription
from services.chassis.process.logging import get_logger
from services.chassis.process.transient import Backoff, described, is_transient, wait_or_stop
from services.chassis.storage.stores import unwritable

_log = get_logger(__name__)
_POLL_SECONDS = 1.0
_CANCEL_SECONDS = 5.0
CONDITION = "working"
"""Name of the health condition: whether work can be claimed and its outcome stored."""


class Worker:
    """Does one attempt at a time, under a lease that a dispatcher has claimed."""

    def __init__(self, host: Host, runner: StepRunner, room: DiskSpace, monitor: Monitor) -> None:
        self._host, self._runner, self._room, self._monitor = host, runner, room, monitor
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._keeper = LeaseKeeper(host)

    async def work(self, lease: Lease, until: float, place: Allocation, stop: asyncio.Event) -> None:
        """Do the attempt of `lease`, which ends at `until`, at its place; at `stop` it is asked to checkpoint, and its lease is released."""
        with self._host.notifications.subscribe(CHANNEL, ("", lease.key)) as woken:
            held = await begin(self._host, self._name, lease, until, place)
            if held is None:
                return
            request = held.work.request
            with (
                bound_contextvars(job=request.job_id, step=request.step, attempt=request.attempt),
                metrics.RUNNING.labels(self._host.service).track_inprogress(),
            ):
                await self._do(held, stop, woken)

    async def _do(self, held: Held, stop: asyncio.Event, woken: Subscription) -> None:
        """Run the work while the lease is renewed and its energy is measured, then conclude."""
        host, gpus = self._host, held.place.gpus
        publish, readings = partial(self._publish, held), partial(self._monitor.readings_of, gpus)
        context = WorkContext(host.settings, host.service, publish, gpus, readings, held.place.held)
        async with self._keeper.kept(held, context, woken), self._monitor.measuring(gpus) as measured:
            outcome = await self._run(held.work, context, stop)
            energy = await self._monitor.energy(measured)
            lost = context.lost.is_set()
            stopped = isinstance(outcome, Stopped | Postponed) and context.reason is not StopReason.CANCEL
            if not lost and not stopped:
                await self._conclude(held, outcome, energy, stop)
        if lost:
            metrics.LEASES_LOST.labels(self._host.service).inc()
            _log.warning("lease lost; the run was abandoned")
        elif stopped:
            if isinstance(outcome, Postponed):
                self._room.refuse(held.lease.key, outcome.unwritable)
            await release(self._host.engine, held.lease)
            _log.info("given back", reason=context.reason or "stopped by itself")
            await wait_or_stop(stop, _POLL_SECONDS)
            return
        self._room.forget([held.lease.key])

    async def _run(self, todo: Work, context: WorkContext, stop: asyncio.Event) -> Outcome:
        """The runner's outcome. On a drain or a lost lease the runner is asked to end; if it does not, it is cancelled."""
        running = asyncio.create_task(self._runner.run(todo, context))
        try:
            await first_of(asyncio.wait({running}), stop.wait(), context.lost.wait())
            if not running.done() and not context.lost.is_set():
                context.request_stop(StopReason.DRAIN)
                grace = self._host.settings.drain_seconds
                await first_of(asyncio.wait({running}, timeout=grace), context.lost.wait())
            if context.lost.is_set():
                await asyncio.wait({running}, timeout=_CANCEL_SECONDS)
        finally:
            if not running.done():
                running.cancel()
                await asyncio.wait({running}, timeout=_CANCEL_SECONDS)
        if not running.done() or running.cancelled():
            return Stopped()
        error = running.exception()
        if error is None:
            return running.result()
        if found := unwritable(error, folders_of(self._host.settings)):
            return Postponed(found)
        note_error(self._host.service, "a run failed", error)
        return unexpected(error)

    async def _conclude(self, held: Held, outcome: Outcome, energy: Energy, stop: asyncio.Event) -> None:
        """Record the outcome, and retry while the database is unreachable; only a drain limits the time."""
        loop = asyncio.get_running_loop()
        backoff = Backoff()
        give_up: float | None = None
        while True:
            try:
                concluded = await finish(self._host, held, outcome, energy)
                break
            except Exception as error:
                note_error(self._host.service, "the outcome could not be recorded yet", error)
                self._host.health.report(CONDITION, False, f"an outcome cannot be recorded: {described(error)}")
                if not is_transient(error):
                    if isinstance(outcome, Failed):
                        raise
                    outcome = unexpected(error)
                if stop.is_set():
                    give_up = give_up or loop.time() + self._host.settings.drain_seconds / 4
                    if loop.time() > give_up:
                        raise
                    await asyncio.sleep(backoff.next())
                else:
                    await wait_or_stop(stop, backoff.next())
        if concluded is None:
            metrics.LEASES_LOST.labels(self._host.service).inc()
            _log.warning("lease lost before the outcome could be recorded")
            return
        self._host.health.report(CONDITION, True)
        metrics.OUTCOMES.labels(self._host.service, held.work.request.kind, concluded).inc()
        _log.info("concluded", outcome=concluded)
        if concluded == "completed":
            request = held.work.request
            folder = checkpoints_of(self._host.settings.home, request.job_id, request.step)
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    def _publish(self, held: Held, data: StepProgressed) -> None:
        self._host.publisher.publish_lossy(
            outside_event(
                held.started.source,
                data,
                correlation_id=held.started.correlation_id,
                causation_id=held.started.id,
                traceparent=held.started.traceparent,
                subject=held.lease.key,
            )
        )
