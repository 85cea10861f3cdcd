"""Claims attempts by lease, renews the lease while a runner works, and announces the outcome once.

Claiming takes two transactions, so that locks are always taken in one order: the lease on the work row alone, then the
attempt with its StepStarted, under the token. An unexpected error never ends a worker: it is logged, counted and retried. When
a worker cannot keep its lease, the attempt belongs to another worker.
"""

import asyncio
import os
import secrets
import shutil
import socket
from collections.abc import Awaitable
from dataclasses import dataclass

from structlog.contextvars import bound_contextvars

from schemas.bounds import fitting_fault, fitting_result
from schemas.envelope import Event
from schemas.jobs import StepCancelled, StepCompleted, StepFailed, StepFault, StepStarted
from schemas.progress import StepProgressed
from services.chassis.executor import metrics
from services.chassis.executor.attempts import AttemptState, attempt_ref, decision
from services.chassis.executor.disk_space import DiskSpace, folders_of
from services.chassis.executor.folders import checkpoints_of
from services.chassis.executor.host import Host
from services.chassis.executor.retention import removers
from services.chassis.executor.runner import (
    Completed,
    Failed,
    Outcome,
    Postponed,
    StepRunner,
    Stopped,
    StopReason,
    UnderLocks,
    Work,
    WorkContext,
)
from services.chassis.executor.statements import CHANNEL
from services.chassis.executor.text import storable
from services.chassis.executor.work import Lease, claim, drop, holds, release, renew, requeue_open, unleased
from services.chassis.kafka.publisher import outside_event
from services.chassis.kernel.transaction.commands import Command
from services.chassis.postgres.notifications import Subscription
from services.chassis.process.logging import get_logger
from services.chassis.process.transient import Backoff, Loop, described, is_transient, wait_or_stop
from services.chassis.storage.stores import unwritable

__all__ = (
    "Completed", "Failed", "Outcome", "Postponed", "StepRunner", "StopReason", "Stopped", "UnderLocks", "Work", "WorkContext", "Worker",
    "worker_tasks",
)  # fmt: skip

_log = get_logger(__name__)
_POLL_SECONDS = 1.0
_CANCEL_SECONDS = 5.0
CONDITION = "working"
"""Name of the health condition: whether work can be claimed and its outcome stored."""
_MESSAGE_LIMIT = 4000


def worker_tasks(host: Host, runner: StepRunner) -> list[Loop]:
    """The loops of `settings.workers` workers, for `assemble(tasks=...)`; also registers the removers of their files."""
    host.keep(removers(host.engine, host.settings, host.service))
    if not host.settings.workers:
        return []
    host.health.requires = (*host.health.requires, CONDITION)
    room = DiskSpace(host.settings, host.service, host.health)
    return [room.run, *(Worker(host, runner, room).run for _ in range(host.settings.workers))]


@dataclass(frozen=True, slots=True)
class Held:
    """An attempt that this worker has begun."""

    work: Work
    lease: Lease
    started: Event
    """The StepStarted of this run: the cause of its progress and of what is decided when it has ended."""
    until: float
    """Time on the event loop's clock by which the lease has expired unless it is renewed."""


class Worker:
    """Does one attempt at a time."""

    def __init__(self, host: Host, runner: StepRunner, room: DiskSpace) -> None:
        self._host, self._runner, self._room = host, runner, room
        self._seconds = host.settings.lease_seconds
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._abandoned: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; a running attempt is then asked to checkpoint, and its lease is released."""
        backoff = Backoff()
        requeued = False
        with self._host.notifications.subscribe(CHANNEL) as woken:
            while not stop.is_set():
                try:
                    if not requeued:
                        await requeue_open(self._host.engine)
                        requeued = True
                    found = await self._look(stop, woken)
                    backoff.reset()
                except Exception as error:
                    self._note("worker interrupted", error)
                    self._host.health.report(CONDITION, False, described(error))
                    await wait_or_stop(stop, backoff.next())
                else:
                    if not found:
                        await _first(stop.wait(), woken.wait(_POLL_SECONDS))

    async def _look(self, stop: asyncio.Event, woken: Subscription) -> bool:
        """Claim and do one attempt; False where nothing waits."""
        if refused := self._room.refused:
            self._room.forget(set(refused) - await unleased(self._host.engine, refused))
        without = await self._room.look()
        claimed_at = asyncio.get_running_loop().time()
        lease = await claim(
            self._host.engine, secrets.token_hex(16), self._seconds, without=without, only_cancelled=self._room.short
        )
        self._host.health.report(CONDITION, True)
        if lease is None:
            return False
        held = await self._begin(lease, claimed_at + self._seconds)
        if held is not None:
            request = held.work.request
            with (
                bound_contextvars(job=request.job_id, step=request.step, attempt=request.attempt),
                metrics.RUNNING.labels(self._host.service).track_inprogress(),
            ):
                await self._do(held, stop, woken)
        return True

    async def _begin(self, lease: Lease, until: float) -> Held | None:
        """Emit StepStarted under the lease; None where the attempt needs no worker any more."""
        ref = attempt_ref(*_parts(lease.key))
        async with self._host.transact([ref]) as command:
            state = command.unit.states[ref]
            if not isinstance(state, AttemptState):
                raise TypeError(f"the domain of {self._host.service} has no attempts; extend ExecutorDomain")
            if not await holds(command.connection, lease):
                return None
            if state.requested is None or state.outcome:
                await drop(command.connection, lease)
                return None
            if state.cancel_requested:
                command.unit.apply(decision(state.requested, StepCancelled))
                return None
            started = command.unit.apply(decision(state.requested, StepStarted, worker=self._name))
        return Held(Work(state.requested, lease.token), lease, started, until)

    async def _do(self, held: Held, stop: asyncio.Event, woken: Subscription) -> None:
        """Run the work while the lease is renewed, then conclude."""
        context = WorkContext(self._host.settings, self._host.service, lambda data: self._publish(held, data))
        done = asyncio.Event()
        keeping = asyncio.create_task(self._keep(held, context, done, woken))
        try:
            outcome = await self._run(held.work, context, stop)
            lost = context.lost.is_set()
            stopped = isinstance(outcome, Stopped | Postponed) and context.reason is not StopReason.CANCEL
            if not lost and not stopped:
                await self._conclude(held, outcome, stop)
        finally:
            done.set()
            await self._leave(keeping)
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
            await _first(asyncio.wait({running}), stop.wait(), context.lost.wait())
            if not running.done() and not context.lost.is_set():
                context.request_stop(StopReason.DRAIN)
                grace = self._host.settings.drain_seconds
                await _first(asyncio.wait({running}, timeout=grace), context.lost.wait())
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
        self._note("a run failed", error)
        return _unexpected(error)

    async def _keep(self, held: Held, context: WorkContext, done: asyncio.Event, woken: Subscription) -> None:
        """Renew the lease until `done`, at once on a notification for this attempt; stop the run where that fails.

        A timer decides when the lease has expired; it also runs while a renewal hangs.
        """
        loop = asyncio.get_running_loop()
        fence = loop.call_at(held.until, context.request_stop, StopReason.LEASE_LOST)
        backoff = Backoff(0.2, self._seconds / 4)
        wait = self._seconds / 3
        try:
            while not done.is_set():
                await self._notified(held.lease.key, done, woken, wait)
                if done.is_set():
                    return
                sent_at = loop.time()
                try:
                    cancel = await renew(self._host.engine, held.lease, self._seconds)
                except Exception as error:
                    self._note("the lease could not be renewed yet", error)
                    wait = backoff.next()
                    continue
                if cancel is None:
                    context.request_stop(StopReason.LEASE_LOST)
                    return
                fence.cancel()
                context.renewed()
                if not context.lost.is_set():
                    fence = loop.call_at(sent_at + self._seconds, context.request_stop, StopReason.LEASE_LOST)
                if cancel:
                    context.request_stop(StopReason.CANCEL)
                backoff.reset()
                wait = self._seconds / 3
        except Exception as error:  # the lease is not renewed from here on
            self._note("the lease is no longer renewed", error)
            context.request_stop(StopReason.LEASE_LOST)
        finally:
            fence.cancel()

    async def _notified(self, key: str, done: asyncio.Event, woken: Subscription, seconds: float) -> None:
        """Wait for `seconds`, for `done`, or for a notification about this attempt (an empty payload concerns all)."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not done.is_set() and (left := until - loop.time()) > 0:
            waiting = asyncio.ensure_future(woken.wait(left))
            await _first(done.wait(), asyncio.wait({waiting}))
            if waiting.done() and {"", key} & set(waiting.result()):
                return
            waiting.cancel()

    async def _conclude(self, held: Held, outcome: Outcome, stop: asyncio.Event) -> None:
        """Record the outcome, and retry while the database is unreachable; only a drain limits the time."""
        loop = asyncio.get_running_loop()
        backoff = Backoff()
        give_up: float | None = None
        while True:
            try:
                concluded = await self._finish(held, outcome)
                break
            except Exception as error:
                self._note("the outcome could not be recorded yet", error)
                self._host.health.report(CONDITION, False, f"an outcome cannot be recorded: {described(error)}")
                if not is_transient(error):
                    if isinstance(outcome, Failed):
                        raise
                    outcome = _unexpected(error)
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

    async def _finish(self, held: Held, outcome: Outcome) -> str | None:
        """Check the lease, emit extra events and the outcome, in one transaction; None where the lease is lost."""
        ref = held.work.ref
        extra = outcome.refs if isinstance(outcome, UnderLocks) else ()
        async with self._host.transact([ref, *extra]) as command:
            state = command.unit.states[ref]
            if not isinstance(state, AttemptState) or not await holds(command.connection, held.lease):
                return None
            if state.cancel_requested:
                command.unit.apply(decision(held.work.request, StepCancelled))
                return "cancelled"
            return _announce(command, held, outcome)

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

    async def _leave(self, keeping: "asyncio.Task[None]") -> None:
        """Wait briefly for the renewal to end. One that hangs is not cancelled, since its connection would return to the pool in use."""
        await asyncio.wait({keeping}, timeout=_CANCEL_SECONDS)
        if not keeping.done():
            self._abandoned.add(keeping)
            keeping.add_done_callback(self._abandoned.discard)

    def _note(self, what: str, error: BaseException) -> None:
        if is_transient(error):
            _log.warning(what, error=described(error))
        else:
            metrics.ERRORS.labels(self._host.service).inc()
            _log.error(what, exc_info=error)


def _announce(command: Command, held: Held, outcome: Outcome) -> str:
    request = held.work.request
    if isinstance(outcome, UnderLocks):
        outcome = outcome.decide(command.unit.states, command.unit.now)
    match outcome:
        case Completed(result, decisions):
            inputs = {name: ref.sha256 for name, ref in request.inputs.items()}
            result = fitting_result(result.model_copy(update={"inputs": inputs}))
            for extra in decisions:
                command.unit.apply(extra, held.started)
            command.unit.apply(decision(request, StepCompleted, result=result), held.started)
            return "completed"
        case Failed(fault):
            command.unit.apply(decision(request, StepFailed, fault=fitting_fault(fault)), held.started)
            return "failed"
    raise TypeError(f"{outcome} is not a possible outcome of an attempt that was not cancelled")


def _unexpected(error: BaseException) -> Failed:
    return Failed(StepFault(cause="infrastructure", message=storable(described(error, _MESSAGE_LIMIT))))


def _parts(key: str) -> tuple[str, str, int]:
    job_id, step, attempt = key.rsplit("/", 2)
    return job_id, step, int(attempt)


async def _first(*awaitables: Awaitable[object]) -> None:
    """Wait for the first of these and cancel the others; for waits only, never for what must not be cancelled."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
