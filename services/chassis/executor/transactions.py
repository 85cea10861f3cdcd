"""The two transactions of an attempt under its lease: StepStarted when a worker begins it, and its outcome when it has ended.

Each locks the attempt first and then checks the lease, so that a worker that has lost it changes nothing.
"""

from dataclasses import dataclass

from schemas.bounds import fitting_fault, fitting_result
from schemas.envelope import Event
from schemas.jobs import StepCancelled, StepCompleted, StepFailed, StepFault, StepStarted
from schemas.usage import Prices, StepUsage
from services.chassis.executor.attempts import AttemptState, attempt_ref, decision
from services.chassis.executor.host import Host
from services.chassis.executor.runner import Completed, Failed, Outcome, UnderLocks, Work
from services.chassis.executor.slots import NOWHERE, Allocation
from services.chassis.executor.work import Lease, drop, used_seconds
from services.chassis.kernel.transaction.commands import Command

STARTS_AT_MOST = 100
"""So often is an attempt begun. It is bounded, since a step may end its own worker again and again, for example with the whole container
when memory runs out."""
_BEGUN_TOO_OFTEN = StepFault(
    cause="infrastructure",
    message=f"workers began it {STARTS_AT_MOST} times, and each was lost or stopped before it ended; if the container ends with its step "
    "when memory runs out, give it more memory or lower micro_batch_size",
)


@dataclass(frozen=True, slots=True)
class Held:
    """An attempt that this worker has begun."""

    work: Work
    lease: Lease
    started: Event
    """The StepStarted of this run: the cause of its progress and of what is decided when it has ended."""
    until: float
    """Time on the event loop's clock by which the lease has expired unless it is renewed."""
    place: Allocation


Energy = tuple[float | None, float | None]
"""Joules of the processors and of the GPU of a run; None where they were not measured."""


async def begin(host: Host, worker: str, lease: Lease, until: float, place: Allocation = NOWHERE) -> Held | None:
    """Emit StepStarted of `worker` at its place under the lease, which ends at `until`.

    Returns None where the attempt needs no worker any more, or was begun too often; its end then tells what earlier runs used.
    """
    ref = attempt_ref(*_parts(lease.key))
    async with host.transact([ref]) as command:
        state = command.unit.states[ref]
        if not isinstance(state, AttemptState):
            raise TypeError(f"the domain of {host.service} has no attempts; extend ExecutorDomain")
        seconds = await used_seconds(command.connection, lease)
        if seconds is None:
            return None
        if state.requested is None or state.outcome:
            await drop(command.connection, lease)
            return None
        usage = _usage(place, seconds, (None, None), host.settings.price.prices) if state.starts else None
        if state.cancel_requested:
            command.unit.apply(decision(state.requested, StepCancelled, usage=usage))
            return None
        if state.starts >= STARTS_AT_MOST:
            command.unit.apply(decision(state.requested, StepFailed, fault=_BEGUN_TOO_OFTEN, usage=usage))
            return None
        counted = {"cores": place.cores, "devices": place.devices}
        started = command.unit.apply(decision(state.requested, StepStarted, worker=worker, **counted))
    return Held(Work(state.requested, lease.token), lease, started, until, place)


async def finish(host: Host, held: Held, outcome: Outcome, energy: Energy = (None, None)) -> str | None:
    """Check the lease, emit extra events and the outcome with what the attempt used, in one transaction; None where the lease is lost."""
    ref = held.work.ref
    extra = outcome.refs if isinstance(outcome, UnderLocks) else ()
    async with host.transact([ref, *extra]) as command:
        state = command.unit.states[ref]
        seconds = await used_seconds(command.connection, held.lease)
        if not isinstance(state, AttemptState) or seconds is None:
            return None
        usage = _usage(held.place, seconds, energy if state.starts == 1 else (None, None), host.settings.price.prices)
        if state.cancel_requested:
            command.unit.apply(decision(held.work.request, StepCancelled, usage=usage))
            return "cancelled"
        if isinstance(outcome, UnderLocks):
            await command.lock(outcome.further(command.unit.states))
            outcome = outcome.decide(command.unit.states, command.unit.now)
        return _announce(command, held, outcome, usage)


def _usage(place: Allocation, seconds: float, energy: Energy, prices: Prices | None) -> StepUsage:
    """Return what an attempt used, with its cost where there are prices."""
    processor, device = energy
    cost = prices and prices.of(seconds, place.cores, place.devices, (processor or 0) + (device or 0))
    return StepUsage(
        seconds=max(0.0, seconds), cores=place.cores, devices=place.devices, processor_joules=processor, device_joules=device,
        cost=cost, currency=prices and prices.currency,
    )  # fmt: skip


def _announce(command: Command, held: Held, outcome: Outcome, usage: StepUsage) -> str:
    request = held.work.request
    match outcome:
        case Completed(result, decisions):
            inputs = {name: ref.sha256 for name, ref in request.inputs.items()}
            result = fitting_result(result.model_copy(update={"inputs": inputs}))
            for extra in decisions:
                command.unit.apply(extra, held.started)
            command.unit.apply(decision(request, StepCompleted, result=result, usage=usage), held.started)
            return "completed"
        case Failed(fault):
            command.unit.apply(decision(request, StepFailed, fault=fitting_fault(fault), usage=usage), held.started)
            return "failed"
    raise TypeError(f"{outcome} is not a possible outcome of an attempt that was not cancelled")


def _parts(key: str) -> tuple[str, str, int]:
    job_id, step, attempt = key.rsplit("/", 2)
    return job_id, step, int(attempt)
