"""Defines the HTTP API's view of the queue, and renders it; the command line parses the same types."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, Field

from services.orchestrator.queue import Durations, ExpectedTime, OpenAttempt, forecast


class QueuedAttempt(BaseModel):
    """An attempt that is requested and has no outcome."""

    job_id: str
    step: str
    attempt: int = Field(description="Number of the attempt, from 1.")
    kind: str
    executor: str = Field(description="The service that does the step; each has a queue of its own.")
    requester: str
    priority: int = Field(description="A job with a higher number comes first.")
    requested_at: datetime = Field(description="Since when the attempt waits, or waited, for a worker.")


class RunningAttempt(QueuedAttempt):
    """An attempt that a worker has started."""

    started_at: datetime
    worker: str | None = Field(description="The worker that started it last.")
    expected_end: datetime | None = Field(
        description="By its own estimate, else by the median duration of completed steps of its kind."
    )
    unknown: str | None = Field(description="Why the expected end is unknown.")


class WaitingAttempt(QueuedAttempt):
    """An attempt that waits for a worker."""

    place: int = Field(description="Place in the queue of its executor, from 1.")
    not_before: datetime | None = Field(description="Earliest start of the attempt, if it is a retry.")
    expected_start: datetime | None = Field(
        description="Computed from measured durations, as if each executor went on with as many attempts at once as now."
    )
    unknown: str | None = Field(description="Why the expected start is unknown.")


class QueueView(BaseModel):
    """What runs, and what waits for a worker, in the order in which it is claimed."""

    at: datetime = Field(description="Time of the answer.")
    running_total: int = Field(description="Number of running attempts.")
    waiting_total: int = Field(description="Number of waiting attempts, also of those beyond `limit`.")
    running: list[RunningAttempt]
    waiting: list[WaitingAttempt] = Field(description="At most `limit` of each executor, by executor, in order.")


def queue_view(attempts: Sequence[OpenAttempt], durations: Durations, now: datetime, limit: int) -> QueueView:
    """Return the queue at `now`, with at most `limit` attempts of each executor in either list."""
    running, waiting = forecast(attempts, durations, now)
    runs = [_running(expected) for _, expected in _counted(running, limit)]
    waits = [_waiting(place, expected) for place, expected in _counted(waiting, limit)]
    return QueueView(at=now, running_total=len(running), waiting_total=len(waiting), running=runs, waiting=waits)


def _counted(attempts: Sequence[ExpectedTime], limit: int) -> list[tuple[int, ExpectedTime]]:
    """Return the first attempts of each executor with their places."""
    places: dict[str, int] = {}
    found = []
    for expected in attempts:
        place = places[expected.attempt.executor] = places.get(expected.attempt.executor, 0) + 1
        if place <= limit:
            found.append((place, expected))
    return found


def _running(expected: ExpectedTime) -> RunningAttempt:
    one = expected.attempt
    assert one.started_at is not None
    return RunningAttempt(
        **_fields(one), started_at=one.started_at, worker=one.worker, expected_end=expected.at, unknown=expected.unknown
    )


def _waiting(place: int, expected: ExpectedTime) -> WaitingAttempt:
    one = expected.attempt
    return WaitingAttempt(
        **_fields(one), place=place, not_before=one.not_before, expected_start=expected.at, unknown=expected.unknown
    )


def _fields(one: OpenAttempt) -> dict[str, object]:
    return {name: getattr(one, name) for name in QueuedAttempt.model_fields}
