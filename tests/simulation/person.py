"""A person who deals with the dead letters of a service: retries and discards, at the wrong moments too, by the chassis' own code."""

from typing import cast

from services.chassis.kernel.operations import handling
from services.chassis.kernel.operations.handling import DeadLetterContext, NoSuchLetter, NotPossibleNow
from services.chassis.kernel.records import RecordId
from tests.simulation.database import Values
from tests.simulation.promises import Broken
from tests.simulation.service import Service
from tests.simulation.weather import Weather


def letters(service: Service) -> list[tuple[RecordId, Values]]:
    """Return the dead letters that can be handled, in the order of the log."""
    found = sorted(service.database.rows("dead_letter").items())
    return [(cast(RecordId, place), row) for place, row in found if row["state"] != "discarded"]


def to_be_seen_to(service: Service) -> bool:
    """Return whether an operator has something to do."""
    return not service.away and bool(letters(service))


async def meddle(service: Service, weather: Weather) -> None:
    """Retry or discard a random dead letter."""
    if not (found := letters(service)):
        return
    place, _ = weather.chance.choice(found)
    if weather.chance.random() < 0.25:
        await _discard(service, place)
    else:
        await _retry(service, place)


async def clear(service: Service) -> None:
    """Retry open dead letters in order, and discard those that still fail, so that parked records are applied."""
    await handling.drain_free(service.engine, _handling(service))
    for place, row in letters(service):
        if row["state"] == "parked":
            continue
        if not await _retry(service, place):
            await _discard(service, place)
        return


async def _retry(service: Service, place: RecordId) -> bool:
    try:
        done = await handling.retry(service.engine, _handling(service), place)
    except (NoSuchLetter, NotPossibleNow):
        return True
    return done.failed is None or done.failed.record_id != place


async def _discard(service: Service, place: RecordId) -> None:
    try:
        await handling.discard(service.engine, _handling(service), place, "it is hopeless", "a person")
    except (NoSuchLetter, NotPossibleNow):
        return


def expected(service: Service) -> None:
    """Raises Broken if a dead letter has a reason that the run does not cause."""
    for place, row in sorted(service.database.rows("dead_letter").items()):
        said = row["error"].partition(":")[0]
        if row["state"] == "failed" and said != "Poisoned":
            raise Broken(f"{service.name}: {place} failed with {row['error']}")


def _handling(service: Service) -> DeadLetterContext:
    return DeadLetterContext(service.name, service.domain, service.ledger, "")
