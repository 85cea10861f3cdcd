"""Somebody else writes as this service: the partition stops with those words, and goes on when what he wrote is stepped over."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from schemas.envelope import Event, encode
from schemas.topics import JOBS
from services.chassis.kafka.publisher import make_producer
from services.chassis.kernel.deadletters import repository
from services.chassis.kernel.records import RecordId, event_in, named
from services.chassis.kernel.transaction.batch import RecordFailure
from services.chassis.replay.checks import ReplayRefused
from services.chassis.replay.rebuild import verify
from tests.toy import Toy, until


async def written_by_another(toy: Toy) -> RecordId:
    """What a second deployment with a database of its own decides about the same job: the same number, another id."""
    (ours,) = await toy.log()
    event = event_in(ours, toy.domain.handles)
    assert isinstance(event, Event)
    value, headers = encode(event._replace(id="another-writers"))
    producer = make_producer(toy.settings.cluster, "another")
    await producer.start()
    sent = await producer.send_and_wait(JOBS.name, value, ours.key, ours.partition, headers=headers)
    await producer.stop()
    return sent.topic, sent.partition, sent.offset


async def test_an_own_number_with_another_id_stops_the_partition_and_every_replay_until_it_is_stepped_over(
    toy: Toy,
) -> None:
    async with toy.running() as service:
        await toy.send(toy.requested("a"))
        await until(lambda: _published(toy))
        ours = (await toy.log())[0]
        place = await written_by_another(toy)
        await until(lambda: "another deployment writes as" in service.health.missing.get("handling", ""))
        said = service.health.missing["handling"]
        assert f"JobRejected another-writers at {named(place)} has number 1" in said
        assert dict(ours.headers)["ce_id"].decode()[-8:] in said
        assert "neuroweaver partitions step-over" in said
        assert await toy.scalar("SELECT count(*) FROM dead_letter WHERE event_id = 'another-writers'") == 0
        with pytest.raises(ReplayRefused, match="another deployment writes as"):
            await verify(service.projection)
    async with toy.engine.begin() as connection:  # as if the number had been passed over
        await connection.execute(
            text("UPDATE position SET next_offset = :next WHERE topic = :topic AND partition = :partition"),
            {"next": place[2] + 1, "topic": place[0], "partition": place[1]},
        )
    with pytest.raises(RecordFailure, match="another deployment writes as"):
        await verify(service.projection)
    given_up_at = datetime.now(UTC)
    async with toy.engine.begin() as connection:
        fact = {
            "topic": place[0],
            "partition": place[1],
            "offset": place[2],
            "event_type": None,
            "event_id": None,
            "error": "",
        }
        given_up = {"reason": "another deployment wrote it", "discarded_by": "a person", "appended_at": given_up_at}
        await repository.learn(connection, [{**fact, **given_up}])
    assert (await verify(service.projection)).differences == 0


async def _published(toy: Toy) -> bool:
    return len(await toy.log()) == 1
