"""Orders records for reading: causes come before effects, and every selected record appears once.

Pure. Records that share a cause or a job form one group. Within a group an event comes after its cause; otherwise the
earlier one comes first. An event whose cause is not selected, or is part of a cycle of causes, is included with a remark.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Order(NamedTuple):
    """The sort key of records that causation does not order."""

    timestamp: int
    """The log's time, in milliseconds since 1970."""
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class OrderedRecord:
    """The parts of a record that the ordering needs."""

    order: Order
    id: str | None
    """Id of the event; None if the record is not an event."""
    cause: str | None
    """Id of the event that caused it."""
    about: str | None
    """The correlation id, usually a job's."""
    type: str
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One record at its place in the order."""

    number: int
    record: OrderedRecord
    because: int | None
    """Number of the line that caused it; None if no line did."""
    remark: str
    """What is unusual about it; empty if nothing is."""


@dataclass(frozen=True, slots=True)
class EventGroup:
    """Records that belong together."""

    about: tuple[str, ...]
    """The correlation id that they share."""
    lines: tuple[Line, ...]


OUTSIDE, CIRCLE, REPEATED = "its cause is not among these records", "its causes form a cycle", "the same event again"


def causal_groups(records: Sequence[OrderedRecord]) -> list[EventGroup]:
    """Order all of `records`, each once; groups come in the order of their earliest record, and lines are numbered
    through."""
    ordered = sorted(records, key=lambda item: item.order)
    first: dict[str, int] = {}
    for index, item in enumerate(ordered):
        if item.id is not None:
            first.setdefault(item.id, index)
    causes = [first.get(item.cause) if item.cause is not None else None for item in ordered]
    result: list[EventGroup] = []
    number = 1
    for members in _groups(ordered, causes, first):
        lines = _lines(ordered, causes, first, members, number)
        number += len(lines)
        names = {ordered[index].about for index in members}
        result.append(EventGroup(tuple(sorted(name for name in names if name is not None)), tuple(lines)))
    return result


def _groups(ordered: Sequence[OrderedRecord], causes: Sequence[int | None], first: dict[str, int]) -> list[list[int]]:
    """Group indexes that share a cause, an id or a correlation id: disjoint sets, each represented by its earliest
    record."""
    leader = list(range(len(ordered)))

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    def join(one: int, other: int) -> None:
        one, other = find(one), find(other)
        leader[max(one, other)] = min(one, other)

    subject: dict[str, int] = {}
    for index, item in enumerate(ordered):
        cause = causes[index]
        if cause is not None:
            join(index, cause)
        if item.id is not None:
            join(index, first[item.id])
        if item.about is not None:
            join(index, subject.setdefault(item.about, index))
    groups: dict[int, list[int]] = {}
    for index in range(len(ordered)):
        groups.setdefault(find(index), []).append(index)
    return list(groups.values())


def _lines(
    ordered: Sequence[OrderedRecord],
    causes: Sequence[int | None],
    first: dict[str, int],
    members: Sequence[int],
    number: int,
) -> list[Line]:
    """Order causes first, else the earlier record; if only cycles are left, the earliest record opens its cycle."""
    effects: dict[int, list[int]] = {}
    ready: list[int] = []
    for index in members:  # in order of time, so the list is a heap
        cause = causes[index]
        if cause is None:
            ready.append(index)
        else:
            effects.setdefault(cause, []).append(index)
    numbers: dict[int, int] = {}
    opened: set[int] = set()
    waiting = iter(members)
    lines: list[Line] = []
    while len(lines) < len(members):
        if not ready:
            index = _start_of_circle(next(index for index in waiting if index not in numbers), causes)
            opened.add(index)
        else:
            index = heapq.heappop(ready)
            if index in numbers:
                continue
        item, cause = ordered[index], causes[index]
        because = None if cause is None else numbers.get(cause)  # before its own number, since no event is its own cause
        numbers[index] = number + len(lines)
        lines.append(Line(numbers[index], item, because, _remark(index, item, cause, first, opened)))
        for effect in effects.pop(index, ()):
            if effect not in numbers:
                heapq.heappush(ready, effect)
    return lines


def _start_of_circle(index: int, causes: Sequence[int | None]) -> int:
    """If only cycles are left: the earliest record of the cycle that `index` depends on."""
    way: dict[int, None] = {}
    at: int | None = index
    while at is not None and at not in way:
        way[at] = None
        at = causes[at]
    assert at is not None, "what has no cause in the selection is ready from the beginning"
    path = list(way)
    return min(path[path.index(at) :])


def _remark(index: int, item: OrderedRecord, cause: int | None, first: dict[str, int], opened: set[int]) -> str:
    if item.id is not None and first[item.id] != index:
        return REPEATED
    if index in opened:
        return CIRCLE
    return OUTSIDE if item.cause is not None and cause is None else ""
