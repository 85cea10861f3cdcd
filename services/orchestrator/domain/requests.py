"""Which of several requests under one job id counts is told by the log, never by the order in which partitions are read.

The partitions of a topic have no order between them, and two clients may place one id on two of them. So a job remembers
where its requests lie, and which of them counts is a function of what is remembered and of the decision: the request that was
decided on; before that, the one that was appended first. Every other content is a conflict. What is remembered is bounded by
minimum, the first requests of each partition, and so is the same in whatever order they are read.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby

from services.chassis.kernel.records import Logged
from services.orchestrator.domain.state import DecidedOn, Heard, JobState

KEPT = 101
"""So many requests of each partition are remembered; a producer that sends more of them tells nothing new."""
WHOLE = 4
"""So many of them are kept whole until the decision is known. It is about the first of some partition, or about one of the
next where earlier ones were unreadable and were retried after it."""
_CONFLICTS = 100
BEFORE_ALL = Logged(datetime(1970, 1, 1, tzinfo=UTC), "", -1, -1)
"""Place of a fact in a row that an earlier release wrote; a rebuild tells it."""


def heard(state: JobState, request: Heard) -> JobState:
    """The job with one more request, or with one that is known."""
    return _weighed(state, [*_all(state), request], state.decided_on)


def decided(state: JobState, on: DecidedOn) -> JobState:
    """The job with the decision about a request."""
    return _weighed(state, _all(state), on)


def _all(state: JobState) -> Iterator[Heard]:
    if (wish := state.wish) is not None:
        yield Heard(logged=wish.logged or BEFORE_ALL, event_id=wish.event_id, content=wish.content, wish=wish)
    yield from state.others


def _weighed(state: JobState, requests: Iterable[Heard], on: DecidedOn | None) -> JobState:
    """The job's columns that follow from its requests and the decision."""
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
    """The earliest record of each event in a partition, the first of them, in the order of the log."""
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
    """Of `requests`, in the order of the log, the first with the content that was decided on; the first where nothing was.

    A decision of an earlier release names its content by the event that led to it, which may be a repetition, or another event.
    """
    if on is None:
        return _kept_whole(requests)
    contents = [request.content for request in requests if request.content == on.content]
    contents = contents or [request.content for request in requests if request.event_id == on.event_id]
    if not contents and on.content is None:
        contents = [request.content for request in requests]
    return _kept_whole([request for request in requests if request.content in contents[:1]])


def _kept_whole(requests: list[Heard]) -> Heard | None:
    """The first that is kept whole: beyond them another says the same, but no longer all of it; the first where none is."""
    return next((request for request in requests if request.wish is not None), requests[0] if requests else None)


def _partition(request: Heard) -> tuple[str, int]:
    return request.logged.topic, request.logged.partition


def _place(request: Heard) -> tuple[str, int, int]:
    return request.logged.topic, request.logged.partition, request.logged.offset
