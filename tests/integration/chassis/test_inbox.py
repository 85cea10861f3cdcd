"""The inbox in PostgreSQL tells duplicates as the rule in memory does, however records are cut into batches, pruned or not."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random

from sqlalchemy import text

from schemas.envelope import Event, encode
from schemas.topics import REQUESTS
from services.chassis.kernel.records import RecordId, record_id_of
from services.chassis.kernel.statements import PRUNE_INBOX
from services.chassis.kernel.transaction.inbox import Sightings, duplicates
from tests.log import HeldRecord
from tests.toy import Toy

START = datetime(2030, 1, 1, tzinfo=UTC)
Lying = tuple[HeldRecord, Event]


def a_log(toy: Toy, chance: Random) -> list[Lying]:
    """Few events on two partitions, each sent again and again within a hundred days."""
    events = [toy.requested(f"{number}")._replace(id=f"{number % 2}") for number in range(3)]
    ends, days, log = [0, 0], 0.0, []
    for _ in range(60):
        days += chance.choice((0, 0, 0.5, 9, 21))
        partition, event = chance.randrange(2), chance.choice(events)
        value, headers = encode(event)
        at = int((START + timedelta(days=days)).timestamp() * 1000)
        log.append((HeldRecord(REQUESTS.name, partition, ends[partition], at, None, value, headers), event))
        ends[partition] += 1
    return log


async def told(toy: Toy, batches: Sequence[Sequence[Lying]], *, pruned: bool = False) -> set[RecordId]:
    found: set[RecordId] = set()
    async with toy.engine.begin() as connection:
        await connection.execute(text("TRUNCATE inbox"))
        for batch in batches:
            found |= await duplicates(connection, toy.domain, batch)
            if pruned:
                await connection.execute(PRUNE_INBOX)
    return found


async def test_batches_of_any_size_tell_the_same_duplicates(toy: Toy) -> None:
    for seed in range(5):
        chance = Random(seed)
        log, sightings = a_log(toy, chance), Sightings()
        expected = {record_id_of(record) for record, event in log if sightings.repeated(record, event)}
        assert expected
        assert len(expected) < len(log)
        assert await told(toy, [log]) == expected
        assert await told(toy, [[lying] for lying in log], pruned=True) == expected
        cuts = sorted(chance.sample(range(len(log)), 7))
        assert (
            await told(toy, [log[a:b] for a, b in zip([0, *cuts], [*cuts, len(log)], strict=True)], pruned=True) == expected
        )


async def test_what_nothing_can_repeat_any_more_is_forgotten_by_the_time_of_its_partition(toy: Toy) -> None:
    old, new = toy.requested("old"), toy.requested("new")

    def lying(event: Event, partition: int, offset: int, days: float) -> Lying:
        value, headers = encode(event)
        at = int((START + timedelta(days=days)).timestamp() * 1000)
        return HeldRecord(REQUESTS.name, partition, offset, at, None, value, headers), event

    await told(toy, [[lying(old, 0, 0, 0), lying(old, 1, 0, 0), lying(new, 0, 1, 32)]], pruned=True)
    async with toy.engine.connect() as connection:
        left = await connection.execute(text('SELECT partition, "offset" FROM inbox ORDER BY 1, 2'))
        assert [tuple(row) for row in left] == [(0, 1), (1, 0)]


async def test_the_same_record_in_another_log_at_the_same_place_counts(toy: Toy) -> None:
    """A topic was made again: its records have the offsets of those before, and other times."""
    event = toy.requested("a")
    value, headers = encode(event)
    for days in (0, 1, 40):
        at = int((START + timedelta(days=days)).timestamp() * 1000)
        async with toy.engine.begin() as connection:
            again = [(HeldRecord(REQUESTS.name, 0, 0, at, None, value, headers), event)]
            assert await duplicates(connection, toy.domain, again) == set()
