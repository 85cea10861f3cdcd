"""Orders the attempts that wait for a worker and computes when each is expected to start; pure.

The order is that in which an executor claims work (`services.chassis.executor.statements`): by priority, then the requesters take
turns, then the older attempt comes first. A step of a job that has begun does not wait for another turn of its requester.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import heapify, heapreplace
from statistics import median
from typing import NamedTuple

from schemas.steps import EXECUTOR_OF

UNCLAIMED_AFTER = timedelta(seconds=60)
"""If nothing runs at an executor and an attempt has waited for this long, no worker claims its work."""
_NEVER = datetime.max.replace(tzinfo=UTC)


class Duration(NamedTuple):
    """How long a completed step took."""

    kind: str
    base_model: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """An attempt that was requested and has no outcome."""

    job_id: str
    step: str
    attempt: int
    kind: str
    base_model: str | None
    requester: str
    priority: int
    requested_at: datetime
    not_before: datetime | None
    started_at: datetime | None
    worker: str | None
    begun: bool
    """Whether another step of the job, or an earlier attempt at this one, was requested before."""
    eta_seconds: float | None
    """The estimate of the attempt itself, made at `eta_at`."""
    eta_at: datetime | None

    @property
    def executor(self) -> str:
        """The service that does it."""
        return EXECUTOR_OF[self.kind]


@dataclass(frozen=True, slots=True)
class ExpectedTime:
    """An attempt with the time at which it starts or, if it runs, ends; null with the reason why that is unknown."""

    attempt: OpenAttempt
    at: datetime | None
    unknown: str | None = None


class Durations:
    """The median of the measured durations of a kind of step; those of the same base model count where there are any."""

    def __init__(self, measured: Iterable[Duration]) -> None:
        found: dict[tuple[str, str | None], list[float]] = defaultdict(list)
        for kind, base_model, seconds in measured:
            found[kind, base_model].append(seconds)
            found[kind, None].append(seconds)
        self._seconds = {key: median(values) for key, values in found.items()}

    def of(self, attempt: OpenAttempt) -> timedelta | None:
        """Return how long the attempt is expected to take; None if no step of its kind was measured."""
        seconds = self._seconds.get((attempt.kind, attempt.base_model), self._seconds.get((attempt.kind, None)))
        return None if seconds is None else timedelta(seconds=seconds)


def ordered(attempts: Iterable[OpenAttempt]) -> list[OpenAttempt]:
    """Return the waiting attempts of one executor in the order in which they are claimed."""
    everything = list(attempts)
    ahead = Counter((one.requester, one.priority) for one in everything if one.started_at or one.begun)
    turns: dict[tuple[str, str, int], int] = {}
    for one in sorted((one for one in everything if not one.started_at), key=_age):
        if one.begun:
            turns[_key(one)] = 0
        else:
            turns[_key(one)] = ahead[one.requester, one.priority]
            ahead[one.requester, one.priority] += 1
    waiting = (one for one in everything if not one.started_at)
    return sorted(waiting, key=lambda one: (-one.priority, turns[_key(one)], *_age(one)))


def forecast(
    attempts: Sequence[OpenAttempt], durations: Durations, now: datetime
) -> tuple[list[ExpectedTime], list[ExpectedTime]]:
    """Return the running attempts with their expected ends, and the waiting ones in their order with their expected starts.

    Each executor is taken to go on with as many attempts at once as it has now, and at least one.
    """
    running, waiting = list[ExpectedTime](), list[ExpectedTime]()
    by_executor: Mapping[str, list[OpenAttempt]] = defaultdict(list)
    for one in attempts:
        by_executor[one.executor].append(one)
    for _, those in sorted(by_executor.items()):
        ends = [_end(one, durations, now) for one in sorted(those, key=_age) if one.started_at]
        running += ends
        waiting += _starts(ordered(those), [end.at for end in ends], durations, now)
    return running, waiting


def _end(one: OpenAttempt, durations: Durations, now: datetime) -> ExpectedTime:
    if one.eta_seconds is not None and one.eta_at is not None:
        return ExpectedTime(one, max(now, one.eta_at + timedelta(seconds=one.eta_seconds)))
    usual = durations.of(one)
    if usual is None or one.started_at is None:
        return ExpectedTime(one, None, _unmeasured(one))
    return ExpectedTime(one, max(now, one.started_at + usual))


def _starts(
    waiting: Sequence[OpenAttempt], ends: Sequence[datetime | None], durations: Durations, now: datetime
) -> Iterator[ExpectedTime]:
    """Give each attempt in turn the slot that is free first; a slot whose work has no known end is never free."""
    free = [end or _NEVER for end in ends] or [now]
    heapify(free)
    cause = "the end of what runs is unknown, because no step of its kind was completed before"
    if not ends and any(now - one.requested_at > UNCLAIMED_AFTER and (one.not_before or now) <= now for one in waiting):
        free, cause = [_NEVER], f"no worker of the {waiting[0].executor} claims work"
    for one in waiting:
        if free[0] == _NEVER:
            yield ExpectedTime(one, None, cause)
            continue
        start = max(free[0], one.not_before or now)
        usual = durations.of(one)
        if usual is None:
            cause = f"the end of {one.job_id}/{one.step}, which is ahead, is unknown: {_unmeasured(one)}"
        heapreplace(free, _NEVER if usual is None else start + usual)
        yield ExpectedTime(one, start)


def _unmeasured(one: OpenAttempt) -> str:
    return f"no {one.kind} step was completed before"


def _age(one: OpenAttempt) -> tuple[datetime, str, str, int]:
    return one.requested_at, *_key(one)


def _key(one: OpenAttempt) -> tuple[str, str, int]:
    return one.job_id, one.step, one.attempt
