"""Why: what an operator sees of the dead letters: found by type, error, key and time, parked ones behind the one they wait for."""

from collections.abc import Sequence

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.base import Frozen, Moment, Storable
from services.chassis.deadletters import rows
from services.chassis.deadletters.rows import DeadLetter, LetterState

MOST = 1000


class LetterFilter(Frozen):
    """Which dead letters are wanted; all conditions must hold."""

    state: LetterState | None = Field(
        default=None, description="unreadable, failed, parked or discarded; all but discarded."
    )
    type: Storable | None = Field(default=None, max_length=256, description="Type of the event in it.")
    error: Storable | None = Field(default=None, max_length=2000, description="Text that the error contains, in any case.")
    key: Storable | None = Field(default=None, max_length=2000, description="The record's key.")
    since: Moment | None = Field(default=None, description="Appended to the log at this time or later.")
    until: Moment | None = Field(default=None, description="Appended to the log before this time.")
    limit: int = Field(default=100, ge=1, le=MOST, description="At most so many.")


class ListedLetter(DeadLetter):
    """A dead letter with the records that wait for it."""

    parked: tuple[DeadLetter, ...] = Field(default=(), description="Parked behind it, in order.")


_CONDITIONS = {
    "state": "state = :state",
    "type": "event_type = :type",
    "error": "position(lower(:error) IN lower(error)) > 0",
    "key": "key = :key",
    "since": "appended_at >= :since",
    "until": "appended_at < :until",
}


async def find(connection: AsyncConnection, wanted: LetterFilter) -> list[ListedLetter]:
    """The first dead letters that are wanted, in the order of the log; a failed one brings what is parked behind it."""
    given = wanted.model_dump(exclude_none=True, exclude={"limit"})
    conditions = [condition for name, condition in _CONDITIONS.items() if name in given]
    if "state" not in given:
        conditions.append("state <> 'discarded'")
    if "key" in given:
        given["key"] = given["key"].encode()
    found = await rows.search(connection, " AND ".join(conditions), given, wanted.limit)
    if not any(letter.state == "failed" for letter in found):
        return arranged(found)
    known = {letter.place for letter in found}
    parked = await rows.search(connection, "state = 'parked'", {}, MOST)
    behind = [letter for letter in parked if letter.place not in known and _root(letter, parked) in known]
    return arranged([*found, *behind])


def arranged(letters: Sequence[DeadLetter]) -> list[ListedLetter]:
    """Parked ones behind the one that they wait for, where that is among `letters`."""
    parked = [letter for letter in letters if letter.state == "parked"]
    places = {letter.place for letter in letters if letter.state != "parked"}
    behind: dict[tuple[str, int, int], list[DeadLetter]] = {}
    first = []
    for letter in sorted(letters, key=lambda one: one.place):
        root = _root(letter, parked)
        if letter.state == "parked" and root in places:
            behind.setdefault(root, []).append(letter)
        else:
            first.append(letter)
    return [ListedLetter(**dict(letter), parked=tuple(behind.get(letter.place, ()))) for letter in first]


def _root(letter: DeadLetter, parked: Sequence[DeadLetter]) -> tuple[str, int, int]:
    """The place of the record that is first in the row in which `letter` waits."""
    waiting = {one.place: one for one in parked}
    place = letter.place
    while (one := waiting.get(place)) is not None and one.blocked_by is not None and one.blocked_by < place[2]:
        place = (one.topic, one.partition, one.blocked_by)
    return place
