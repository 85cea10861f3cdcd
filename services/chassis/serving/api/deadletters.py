"""Lets operators list, retry and discard dead letters over HTTP, with the same code as the command line."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.base import Storable, Strict
from services.chassis.kernel.deadletters import repository
from services.chassis.kernel.deadletters.listing import LetterFilter, ListedLetter, page
from services.chassis.kernel.deadletters.models import DeadLetter, LetterState
from services.chassis.kernel.operations.handling import (
    DeadLetterContext,
    NoSuchLetter,
    NotPossibleNow,
    Retried,
    discard,
    retry,
)
from services.chassis.kernel.records import RecordId, named
from services.chassis.serving.problem import Problem, problems
from services.chassis.serving.web.parameters import OffsetInPath, PartitionInPath, TopicInPath


class LetterList(Strict):
    """A page of the dead letters of one service."""

    service: str
    counts: dict[LetterState, int] = Field(description="Number of dead letters by state.")
    dead_letters: tuple[ListedLetter, ...] = Field(
        description="Dead letters that match the query, in the order of the log."
    )
    next: str | None = Field(description="`after` for the next page; null at the end.")


class DiscardRequest(Strict):
    """The reason and the person who gives it."""

    reason: Storable = Field(min_length=1, max_length=2000, description="Why it is discarded; recorded for ever.")
    discarded_by: Storable = Field(min_length=1, max_length=256, description="Who discards it.")


def dead_letter_router(engine: AsyncEngine, handling: DeadLetterContext) -> APIRouter:
    """Routes under `/dead-letters/<service>`."""
    service = handling.service
    refusals = problems(404, 409)
    router = APIRouter(prefix=f"/dead-letters/{service}", tags=["dead letters"])
    path = "/{topic}/{partition}/{offset}"

    @router.get("", summary=f"List records that {service} could not process")
    async def show_all(wanted: Annotated[LetterFilter, Query()]) -> LetterList:
        async with engine.connect() as connection:
            found = await page(connection, wanted)
            counts = await repository.count(connection)
        return LetterList(service=service, counts=counts, dead_letters=tuple(found.letters), next=found.next)

    @router.get(path, responses=problems(404), summary="Show one dead letter, with its bytes and where it failed")
    async def show_one(topic: TopicInPath, partition: PartitionInPath, offset: OffsetInPath) -> DeadLetter:
        place = (topic, partition, offset)
        async with engine.connect() as connection:
            found = await repository.show(connection, place)
        if found is None:
            raise _missing(place)
        return found

    @router.post(
        path + "/retry",
        responses=refusals,
        summary="Handle a dead letter again, then the records parked behind it, in order",
    )
    async def try_again(topic: TopicInPath, partition: PartitionInPath, offset: OffsetInPath) -> Retried:
        place = (topic, partition, offset)
        try:
            return await retry(engine, handling, place)
        except NoSuchLetter as error:
            raise _missing(place) from error
        except NotPossibleNow as error:
            raise Problem(409, "Not now", str(error)) from error

    @router.post(
        path + "/discard",
        responses=refusals,
        summary="Discard a dead letter for ever; the records parked behind it are then processed",
    )
    async def give_up(
        topic: TopicInPath, partition: PartitionInPath, offset: OffsetInPath, request: DiscardRequest
    ) -> Retried:
        place = (topic, partition, offset)
        try:
            return await discard(engine, handling, place, request.reason, request.discarded_by)
        except NoSuchLetter as error:
            raise _missing(place) from error
        except NotPossibleNow as error:
            raise Problem(409, "Not now", str(error)) from error

    return router


def _missing(place: RecordId) -> Problem:
    return Problem(404, "Not found", f"there is no dead letter at {named(place)}")
