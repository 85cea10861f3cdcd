"""Positions that do not belong to the log are refused in words, at once, by whatever would read from them."""

import asyncio
import re

import pytest
from sqlalchemy import text

from schemas.topics import REQUESTS
from services.chassis.kernel import log
from services.chassis.kernel.log import LogReadStalled
from services.chassis.replay import rebuild as replay
from services.chassis.replay.checks import ReplayRefused
from services.chassis.replay.status import status
from tests.toy import Toy, until


async def applied(toy: Toy) -> None:
    async with toy.running():
        await toy.send(*(toy.requested(f"{number}") for number in range(10)))
        await until(lambda: toy.scalar("SELECT count(*) = 10 FROM tally"))


async def execute(toy: Toy, statement: str) -> None:
    async with toy.engine.begin() as connection:
        await connection.execute(text(statement))


IDENTITIES = "INSERT INTO log_identity (topic, cluster_id, topic_id) VALUES ('neuroweaver.requests', 'other', 'other')"
NOT_OF_THIS_LOG = {
    "INSERT INTO position VALUES ('neuroweaver.requests', 99, 7)": (
        r"neuroweaver\.requests:99 is read up to offset 7 and does not exist: neuroweaver\.requests has partitions 0 to 5"
    ),
    "UPDATE position SET next_offset = 900000000": "is read up to offset 900000000 but ends at .* this is another log",
    IDENTITIES: "neuroweaver.requests is in another log: cluster other was read and this is cluster",
}


async def test_positions_that_are_not_of_this_log_are_refused_in_words_by_verify_and_shown_by_status(toy: Toy) -> None:
    await applied(toy)
    projection = toy.runtime().projection
    for statement, says in NOT_OF_THIS_LOG.items():
        await execute(toy, "TRUNCATE log_identity")
        await execute(toy, statement)
        with pytest.raises(ReplayRefused, match=says):
            await asyncio.wait_for(replay.verify(projection), log.STALL_SECONDS)
        stands = [place.stands for place in (await status(projection)).partitions if place.stands]
        assert re.search(says, " ".join(stands))


@pytest.mark.parametrize("partition", [0, 99])
async def test_a_log_that_does_not_come_to_where_it_is_to_be_read_is_not_waited_for_for_ever(
    toy: Toy, partition: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "STALL_SECONDS", 0.5)
    place = (REQUESTS.name, partition)

    async def read() -> None:
        async with log.read(toy.settings.cluster, {place: (0, 900_000_000)}) as chunks:
            async for _ in chunks:
                pass

    with pytest.raises(
        LogReadStalled, match=rf"{REQUESTS.name}:{partition} up to offset 900000000, which was read up to \d+"
    ):
        await asyncio.wait_for(read(), 60)
