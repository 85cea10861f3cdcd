"""Selects which of several requests under one job id counts, independently of the order in which partitions are read.

The partitions of a topic have no mutual order, and two clients may put one id on two of them. So a job remembers the log
positions of its requests. The request that was decided on counts; before a decision, the one that was appended first. Every
other content is a conflict. Only the first requests of each partition are remembered, so the result is bounded and does not
depend on the reading order.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby

from services.chassis.kernel.records import Logged
from services.orchestrator.domain.state import DecidedOn, Heard, JobState

KEPT = 101
"""The most requests of each partition that are remembered; further ones add no information."""
WHOLE = 4
"""The number of them that are kept in full until the decision is known. The decision is about the first of a partition, or
about one of the next if earlier ones were unreadable and were retried later."""
_CONFLICTS = 100
BEFORE_ALL = Logged(datetime(1970, 1, 1, tzinfo=UTC), "", -1, -1)
"""Log position of a fact in a row that an earlier release wrote; a rebuild fills in the real one."""


def heard(state: JobState, request: Heard) -> JobState:
    """Return the job after one more request, which may be known already."""
    return _weighed(state, [*_all(state), request], state.decided_on)


def decided(state: JobState, on: DecidedOn) -> JobState:
    """Return the job after the decision about a request."""
    return _weighed(state, _all(state), on)


def _all(state: JobState) -> Iterator[Heard]:
    if (wish := state.wish) is not None:
        yield Heard(logged=wish.logged or BEFORE_ALL, event_id=wish.event_id, content=wish.content, wish=wish)
    yield from state.others


def _weighed(state: JobState, requests: Iterable[Heard], on: DecidedOn | None) -> JobState:
    """Return the job with the fields that follow from its requests and the decision."""
    kept = _first_of_each_partition(requests, on)
    counts = _counting(kept, on)
    content = counts.content if counts else on and on.content
    conflicts = dict.fromkeys(request.event_id for request in kept if request.content != content)
    wish = counts and counts.wish
    return state.model_copy(
        update={
            "wish": wish,
            "others": tuple(request for request in kept if request is not counts or wish is None),
            "conflicts": tuple(conflicts)[:_CONFLICTS],
            "decided_on": on,
            "correlation_id": wish and wish.job_id,
            "opened_by": wish and wish.event_id,
            "traceparent": wish and wish.traceparent,
        }
    )


def _first_of_each_partition(requests: Iterable[Heard], on: DecidedOn | None) -> list[Heard]:
    """Return the first events of each partition, each at its earliest record, in the order of the log."""
    known: dict[tuple[str, int, str, str], Heard] = {}
    for request in sorted(requests, key=_place):
        known.setdefault((*_partition(request), request.event_id, request.content), request)
    kept: list[Heard] = []
    for _, here in groupby(known.values(), key=_partition):
        for rank, request in enumerate(here):
            if rank == KEPT:
                break
            meant = on is None or on.content is None or on.content == request.content or on.event_id == request.event_id
            whole = rank < WHOLE and meant
            kept.append(request if whole or request.wish is None else request.model_copy(update={"wish": None}))
    return sorted(kept, key=lambda request: request.logged)


def _counting(requests: list[Heard], on: DecidedOn | None) -> Heard | None:
    """Return the first of `requests`, in log order, with the content that was decided on; without a decision, the first of
    all.

    A decision of an earlier release names its content by the event that led to it, which may be a repetition, or another
    event.
    """
    if on is None:
        return _kept_whole(requests)
    contents = [request.content for request in requests if request.content == on.content]
    contents = contents or [request.content for request in requests if request.event_id == on.event_id]
    if not contents and on.content is None:
        contents = [request.content for request in requests]
    return _kept_whole([request for request in requests if request.content in contents[:1]])


def _kept_whole(requests: list[Heard]) -> Heard | None:
    """Return the first request that is kept in full (later ones with the same content are not), or the first if none is."""
    return next((request for request in requests if request.wish is not None), requests[0] if requests else None)


def _partition(request: Heard) -> tuple[str, int]:
    return request.logged.topic, request.logged.partition


def _place(request: Heard) -> tuple[str, int, int]:
    return request.logged.topic, request.logged.partition, request.logged.offset
