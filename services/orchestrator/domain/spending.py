"""Says what a job has used and what it costs, and when its budget is spent; pure functions of its state."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from schemas.base import Frozen
from schemas.reasons import Reason
from schemas.usage import Prices, StepUsage
from services.orchestrator.domain.state import Attempt, JobState


class Spent(Frozen):
    """What the attempts of a job have used that have ended."""

    seconds: float
    joules: float | None
    """What was measured; None if nothing was."""
    costs: dict[str, float]
    """By currency; empty without prices."""


def spent(state: JobState) -> Spent:
    """Return what all attempts used that have ended, also before a retry of the job."""
    used = [usage for _, _, attempt in state.asked_attempts() if (usage := _usage(attempt))]
    joules = [one.joules for one in used if one.joules is not None]
    costs: dict[str, float] = {}
    for one in used:
        if one.cost is not None and one.currency is not None:
            costs[one.currency] = costs.get(one.currency, 0.0) + one.cost
    return Spent(seconds=sum(one.seconds for one in used), joules=sum(joules) if joules else None, costs=costs)


def spent_at(state: JobState, budget: float, prices: Prices) -> datetime | None:
    """Return when the job has cost `budget` since it was accepted or retried, if nothing ends before; None if it does not.

    The time is that of the latest request of an attempt where attempts that have ended cost as much already. An attempt that has not ended costs its
    time, from its first start; its energy is known when it has ended.
    """
    counted = [attempt for step, number, attempt in state.asked_attempts() if number > state.spent.get(step, 0)]
    over = sum(_cost(attempt, prices) for attempt in counted if not _accrues(attempt))
    running = [attempt.started for attempt in counted if attempt.started and _accrues(attempt)]
    rates = [prices.per_second(started.cores, started.devices) for started in running]
    if over >= budget:
        return max(attempt.asked.at for attempt in counted if attempt.asked)
    if not sum(rates):
        return None
    first = min(started.at for started in running)
    late = sum(rate * (started.at - first).total_seconds() for rate, started in zip(rates, running, strict=True))
    return _later(first, (budget - over + late) / sum(rates))


def fault_of_budget(budget: float, prices: Prices) -> Reason:
    """Return why a job ends that has spent its budget."""
    return Reason(
        field="budget",
        value=f"{budget:g}",
        message=f"the job has cost {budget:g} {prices.currency} since it was accepted or retried",
        remedy="retry it, which continues it from its checkpoints for the same amount; or send it with a larger one under a new id",
    )


def faults_of_budget(budget: float | None, prices: Prices | None) -> Iterable[Reason]:
    """Yield why a budget cannot be kept with the operator's prices."""
    if budget is not None and not (prices and prices.of_time):
        yield Reason(
            field="budget",
            value=f"{budget:g}",
            message="the operator has set no price for machine time, so a budget would never end the job",
            remedy="leave it out or set max_duration; the operator sets NEUROWEAVER_PRICE_CORE_HOUR or NEUROWEAVER_PRICE_DEVICE_HOUR",
        )


def _usage(attempt: Attempt) -> StepUsage | None:
    return attempt.outcome.usage if attempt.outcome else None


def _accrues(attempt: Attempt) -> bool:
    return attempt.outcome is None and attempt.closed is None


def _cost(attempt: Attempt, prices: Prices) -> float:
    """Return the cost of an attempt that has ended: as its executor told it in this currency, else by its time."""
    usage, started = _usage(attempt), attempt.started
    if usage and usage.cost is not None and usage.currency == prices.currency:
        return usage.cost
    end = attempt.outcome or attempt.closed
    if started is None or end is None:
        return 0.0
    return max(0.0, (end.at - started.at).total_seconds()) * prices.per_second(started.cores, started.devices)


def _later(moment: datetime, seconds: float) -> datetime | None:
    """Return the moment so many seconds later; None if no calendar reaches it."""
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:
        return None
