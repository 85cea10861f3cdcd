"""Records told as a story: what caused what comes first, and nothing of the selection is left out.

Pure. Records that share a cause, or a job, make one chapter. Within it an event comes after its cause; otherwise the earlier
one first. An event whose cause is not among the records, or lies in a circle of causes, is told all the same and says so.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Order(NamedTuple):
    """What decides between records that causation does not order."""

    timestamp: int
    """Milliseconds since 1970, in the log."""
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class StoryRecord:
    """One record, as far as a story needs it."""

    order: Order
    id: str | None
    """Of the event; None where the record is none."""
    cause: str | None
    """Id of the event that caused it."""
    about: str | None
    """What it is correlated with, usually a job."""
    type: str
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """One record in its place in the story."""

    number: int
    told: StoryRecord
    because: int | None
    """Number of the line that caused it; None where no line did."""
    remark: str
    """What is odd about it; empty where nothing is."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """Records that belong together."""

    about: tuple[str, ...]
    """What they are correlated with."""
    lines: tuple[Line, ...]


OUTSIDE, CIRCLE, REPEATED = "its cause is not among these records", "its causes go in a circle", "the same event again"


def chapters(records: Sequence[StoryRecord]) -> list[Chapter]:
    """All of `records`, each once; chapters in the order of their earliest record, lines numbered through."""
    told = sorted(records, key=lambda item: item.order)
    first: dict[str, int] = {}
    for index, item in enumerate(told):
        if item.id is not None:
            first.setdefault(item.id, index)
    causes = [first.get(item.cause) if item.cause is not None else None for item in told]
    result: list[Chapter] = []
    number = 1
    for members in _groups(told, causes, first):
        lines = _lines(told, causes, first, members, number)
        number += len(lines)
        names = {told[index].about for index in members}
        result.append(Chapter(tuple(sorted(name for name in names if name is not None)), tuple(lines)))
    return result


def _groups(told: Sequence[StoryRecord], causes: Sequence[int | None], first: dict[str, int]) -> list[list[int]]:
    """Indexes by what they share: a cause, an id, what they are about. Disjoint sets, each led by its earliest record."""
    leader = list(range(len(told)))

    def find(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    def join(one: int, other: int) -> None:
        one, other = find(one), find(other)
        leader[max(one, other)] = min(one, other)

    subject: dict[str, int] = {}
    for index, item in enumerate(told):
        cause = causes[index]
        if cause is not None:
            join(index, cause)
        if item.id is not None:
            join(index, first[item.id])
        if item.about is not None:
            join(index, subject.setdefault(item.about, index))
    groups: dict[int, list[int]] = {}
    for index in range(len(told)):
        groups.setdefault(find(index), []).append(index)
    return list(groups.values())


def _lines(
    told: Sequence[StoryRecord], causes: Sequence[int | None], first: dict[str, int], members: Sequence[int], number: int
) -> list[Line]:
    """Causes first, else the earlier one; where only circles are left, the earliest of them opens its circle."""
    effects: dict[int, list[int]] = {}
    ready: list[int] = []
    for index in members:  # in the order of time, so the list is a heap
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
        item, cause = told[index], causes[index]
        because = None if cause is None else numbers.get(cause)  # before its own number: nothing is its own cause
        numbers[index] = number + len(lines)
        lines.append(Line(numbers[index], item, because, _remark(index, item, cause, first, opened)))
        for effect in effects.pop(index, ()):
            if effect not in numbers:
                heapq.heappush(ready, effect)
    return lines


def _start_of_circle(index: int, causes: Sequence[int | None]) -> int:
    """Where only circles are left: the earliest of the circle that `index` hangs on."""
    way: dict[int, None] = {}
    at: int | None = index
    while at is not None and at not in way:
        way[at] = None
        at = causes[at]
    assert at is not None, "what has no cause in the selection is ready from the beginning"
    path = list(way)
    return min(path[path.index(at) :])


def _remark(index: int, item: StoryRecord, cause: int | None, first: dict[str, int], opened: set[int]) -> str:
    if item.id is not None and first[item.id] != index:
        return REPEATED
    if index in opened:
        return CIRCLE
    return OUTSIDE if item.cause is not None and cause is None else ""
