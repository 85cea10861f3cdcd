"""Lists dead letters for operators, by type, error, key and time; parked ones are listed under the one they wait for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field, field_validator
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.base import Frozen, Moment, Storable
from services.chassis.kernel.deadletters import repository, statements
from services.chassis.kernel.deadletters.models import DeadLetterSummary, LetterState
from services.chassis.kernel.records import RecordId, named, parse_record_id

MOST = 1000


class LetterFilter(Frozen):
    """Selects dead letters; all conditions must hold."""

    state: LetterState | None = Field(
        default=None, description="unreadable, failed, parked or discarded; default: all but discarded."
    )
    type: Storable | None = Field(default=None, max_length=256, description="Type of the record's event.")
    error: Storable | None = Field(
        default=None, max_length=2000, description="Text that the error contains; upper and lower case are equal."
    )
    key: Storable | None = Field(default=None, max_length=2000, description="The record's key.")
    since: Moment | None = Field(default=None, description="Appended to the log at this time or later.")
    until: Moment | None = Field(default=None, description="Appended to the log before this time.")
    after: str | None = Field(
        default=None,
        max_length=300,
        description="Continue after this record, topic:partition:offset: `next` of the previous page.",
    )
    limit: int = Field(default=100, ge=1, le=MOST, description="The most dead letters on a page.")

    @field_validator("after")
    @classmethod
    def _a_place(cls, said: str | None) -> str | None:
        if said is not None:
            parse_record_id(said)
        return said


class ListedLetter(DeadLetterSummary):
    """A dead letter with the records parked behind it, all without their bytes."""

    parked: tuple[DeadLetterSummary, ...] = Field(default=(), description="Records that are parked behind it, in order.")


@dataclass(frozen=True)
class LetterPage:
    """One page of the selected dead letters."""

    letters: list[ListedLetter]
    next: str | None
    """`after` for the next page; None on the last page."""


async def find(connection: AsyncConnection, wanted: LetterFilter) -> list[ListedLetter]:
    """The letters of the first page, see `page`."""
    return (await page(connection, wanted)).letters


async def page(connection: AsyncConnection, wanted: LetterFilter) -> LetterPage:
    """The selected dead letters, in the order of the log; a failed one comes with the records parked behind it in its partition,
    up to `MOST`. Of a record's bytes only the beginning of its key is read."""
    given = wanted.model_dump(exclude_none=True, exclude={"limit", "after"})
    conditions = [condition for name, condition in statements.FILTERS.items() if name in given]
    if "state" not in given:
        conditions.append(statements.NOT_DISCARDED)
    if "key" in given:
        given["key"] = given["key"].encode()
    if wanted.after is not None:
        conditions.append(statements.BEHIND)
        given |= dict(zip(("after_topic", "after_partition", "after_offset"), parse_record_id(wanted.after), strict=True))
    found = await repository.search(connection, " AND ".join(conditions), given, wanted.limit)
    following = named(found[-1].record_id) if len(found) == wanted.limit else None
    known = {letter.record_id for letter in found}
    behind: list[DeadLetterSummary] = []
    for topic, partition in sorted({letter.record_id[:2] for letter in found if letter.state == "failed"}):
        here = {"topic": topic, "partition": partition}
        parked = await repository.search(connection, statements.PARKED_HERE, here, MOST - len(behind))
        waiting = {letter.record_id: letter for letter in parked}
        behind += [letter for letter in parked if letter.record_id not in known and _root(letter, waiting) in known]
    return LetterPage(arranged([*found, *behind]), following)


def arranged(letters: Sequence[DeadLetterSummary]) -> list[ListedLetter]:
    """Arranges parked letters under the one that they wait for, where that is among `letters`."""
    parked = {letter.record_id: letter for letter in letters if letter.state == "parked"}
    unparked = {letter.record_id for letter in letters if letter.state != "parked"}
    behind: dict[RecordId, list[DeadLetterSummary]] = {}
    first = []
    for letter in sorted(letters, key=lambda one: one.record_id):
        root = _root(letter, parked)
        if letter.state == "parked" and root in unparked:
            behind.setdefault(root, []).append(letter)
        else:
            first.append(letter)
    return [ListedLetter(**dict(letter), parked=tuple(behind.get(letter.record_id, ()))) for letter in first]


def _root(letter: DeadLetterSummary, parked: Mapping[RecordId, DeadLetterSummary]) -> RecordId:
    """The id of the first record in the chain of records that `letter` waits for."""
    record_id = letter.record_id
    while (one := parked.get(record_id)) is not None and one.blocked_by is not None and one.blocked_by < record_id[2]:
        record_id = (one.topic, one.partition, one.blocked_by)
    return record_id
