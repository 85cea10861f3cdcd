"""A topic that takes less than our batches, dead letters that are too large to be copied, and one relay at a time that is alive."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from schemas.topics import CATALOGUE, JOBS, REQUESTS
from services.chassis import metrics, topics
from services.chassis import relay as relaying
from services.chassis.cluster import Cluster
from services.chassis.deadletters import copies
from services.chassis.exclusive import exclusive
from services.chassis.relay import RELAY_LOCK, Waiting
from tests.integration.chassis.test_relay import holds, refusal, sent, to_send
from tests.log import read_all
from tests.toy import Toy, until


@asynccontextmanager
async def limited(cluster: Cluster, topic: str, size: int) -> AsyncIterator[None]:
    """The topic takes batches of so many bytes at most, for the block."""
    known = {found.name: topics.configuration(found) for found in CATALOGUE}.get(topic, {})

    async def alter(values: dict[str, str]) -> None:
        admin = AIOKafkaAdminClient(**cluster.connection())
        await admin.start()
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, values)])
        await admin.close()

    await alter({**known, "max.message.bytes": str(size)})
    try:
        yield
    finally:
        await alter(dict(known))


async def test_a_topic_that_takes_less_than_our_batches_gets_smaller_ones_and_one_key_alone_waits(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "_LIMIT_SECONDS", 0.5)
    events = [refusal(toy, f"{number % 7}", "x" * 1000) for number in range(400)]
    large, behind = refusal(toy, "large", "x" * 20_000), refusal(toy, "large")
    async with limited(toy.settings.cluster, JOBS.name, 16384), toy.running() as service:
        ids = await to_send(toy, *events)
        await to_send(toy, large, behind)
        await until(lambda: holds(toy, 2))
        assert await sent(toy) == {f"{key}": ids[key::7] for key in range(7)}
        await until(lambda: not service.health.ready)
        reason = service.health.conditions["relaying"].reason
        assert toy.prefix + "large" in reason
        assert f"a record may have 16384, max.message.bytes of {JOBS.name}" in reason
    async with toy.running() as service:
        await until(lambda: holds(toy, 0))
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
    assert (await sent(toy))["large"] == [large.id, behind.id]


async def test_it_heals_without_a_restart_when_the_limit_goes(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "_LIMIT_SECONDS", 0.2)
    large = refusal(toy, "large", "x" * 20_000)
    async with toy.running() as service:
        async with limited(toy.settings.cluster, JOBS.name, 16384):
            await to_send(toy, large)
            await until(lambda: "max.message.bytes" in service.health.conditions["relaying"].reason)
        await until(lambda: holds(toy, 0))
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
    assert (await sent(toy))["large"] == [large.id]


async def send_raw(toy: Toy, *values: bytes, headers: Any = (("ce_type", b"neuroweaver.JobRequested"),)) -> list[int]:
    """Records that nobody can read, by a client that takes more than ours; their offsets."""
    producer = AIOKafkaProducer(**toy.settings.cluster.connection(), max_request_size=8 * 2**20, compression_type="gzip")
    await producer.start()
    found = [
        (await producer.send_and_wait(REQUESTS.name, value, b"k", partition=1, headers=list(headers))).offset
        for value in values
    ]
    await producer.stop()
    return found


async def copied(toy: Toy) -> dict[int, Any]:
    """Copies on the dead-letter topic by offset."""
    records = await read_all(toy.settings.kafka_bootstrap, f"neuroweaver.{toy.name}.dlq")
    return {int(dict(record.headers)["dlq_offset"]): record for record in records}


async def test_a_dead_letter_too_large_for_its_topic_is_copied_without_its_body_and_holds_up_nothing(toy: Toy) -> None:
    bodies = [b"small", b"x" * 3_000_000, b"y" * 1_048_200, b"small too"]
    async with toy.running() as service:
        offsets = await send_raw(toy, *bodies)
        await until(
            lambda: toy.scalar(f'SELECT count(*) = 4 FROM dead_letter WHERE published AND "offset" >= {offsets[0]}')
        )
        assert service.health.ready, service.health.missing
    found = await copied(toy)
    assert [found[offset].value for offset in offsets] == [b"small", b"", b"", b"small too"]
    headers = dict(found[offsets[1]].headers)
    assert headers["dlq_value_bytes"] == b"3000000"
    assert headers["dlq_value_sha256"] == hashlib.sha256(bodies[1]).hexdigest().encode()
    assert headers["ce_type"] == b"neuroweaver.JobRequested"


async def test_a_copy_too_large_even_without_its_body_is_said_and_the_others_are_copied(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_AGAIN_SECONDS", 1.0)
    heavy = (("ce_type", b"neuroweaver.JobRequested"), ("note", b"z" * 4000))
    async with toy.running() as service:
        async with limited(toy.settings.cluster, f"neuroweaver.{toy.name}.dlq", 1400):
            (light,) = await send_raw(toy, b"light")
            (long,) = await send_raw(toy, b"v" * 5000, headers=heavy)
            await send_raw(toy, b"light too")
            await until(lambda: toy.scalar(f'SELECT count(*) = 3 FROM dead_letter WHERE published AND "offset" >= {light}'))
            found = await copied(toy)
            assert found[light].value == b"light"
            assert dict(found[long].headers).keys() >= {"dlq_headers_bytes", "dlq_headers_sha256", "dlq_value_sha256"}
            assert "note" not in dict(found[long].headers)
        async with limited(toy.settings.cluster, f"neuroweaver.{toy.name}.dlq", 150):
            (stuck,) = await send_raw(toy, b"stuck")
            await until(lambda: "copying" in service.health.missing)
            assert f"requests:1:{stuck}" in service.health.missing["copying"]
            assert "max.message.bytes" in service.health.missing["copying"]
        await until(lambda: toy.scalar("SELECT count(*) = 0 FROM dead_letter WHERE NOT published"))
        await until(lambda: service.health.ready, what=lambda: service.health.missing)


async def test_a_dead_letter_topic_that_is_missing_holds_up_no_event_is_said_and_heals_when_it_appears(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_ANSWER_SECONDS", 2.0)
    monkeypatch.setattr(copies, "_AWAY_SECONDS", 0.5)
    name = f"neuroweaver.{toy.name}.dlq"
    admin = AIOKafkaAdminClient(**toy.settings.cluster.connection())
    await admin.start()
    async with toy.running() as service:
        await admin.delete_topics([name])
        await send_raw(toy, b"unreadable")
        await until(lambda: toy.scalar("SELECT count(*) > 0 FROM dead_letter WHERE NOT published"))
        await to_send(toy, *[refusal(toy, f"{number}") for number in range(20)])
        await until(lambda: holds(toy, 0))
        await until(lambda: name in service.health.missing.get("copying", ""), seconds=60)
        await admin.create_topics([NewTopic(name, 1, 1)])
        await until(lambda: toy.scalar("SELECT count(*) = 0 FROM dead_letter WHERE NOT published"), seconds=60)
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
    await admin.close()


# -- one at a time, and alive


async def test_a_session_that_says_nothing_loses_its_lock_though_its_connection_stays_and_one_with_a_heartbeat_keeps_it(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with exclusive(toy.engine) as frozen, exclusive(toy.engine) as quiet, exclusive(toy.engine) as other:
        assert await frozen.take(RELAY_LOCK)
        assert await quiet.take(RELAY_LOCK + 1_000_000)
        assert not await other.take(RELAY_LOCK)
        monkeypatch.setattr(frozen, "_spoke_at", float("inf"))  # its heartbeat sleeps, as in a frozen process
        await until(lambda: other.take(RELAY_LOCK), seconds=60)
        with pytest.raises(DBAPIError):
            await frozen.execute(text("SELECT 1"))
        assert not await other.take(RELAY_LOCK + 1_000_000)
        await quiet.execute(text("SELECT 1"))


async def test_a_standby_exports_the_outbox_and_is_not_ready_when_its_oldest_event_is_old(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "_OLD_SECONDS", 0.5)
    async with exclusive(toy.engine) as somebody:
        assert await somebody.take(RELAY_LOCK)
        await to_send(toy, refusal(toy, "a"), refusal(toy, "b"))
        service = toy.service()
        async with service.lifespan():
            await until(lambda: "2 events wait in the outbox" in service.health.missing.get("relaying", ""))
            assert metrics.OUTBOX_ROWS.labels(toy.name)._value.get() == 2
            assert metrics.OUTBOX_SECONDS.labels(toy.name)._value.get() > 0


def test_an_outbox_is_overdue_when_its_oldest_row_is_old_and_stays() -> None:
    old = Waiting(rows=3, first=7, seconds=40.0)
    assert "3 events wait" in str(old.overdue(Waiting(2, 7, 39.0)))
    assert old.overdue(Waiting(2, 5, 39.0)) is None  # it moves
    assert old.overdue(None) is None
    assert Waiting(1, 7, 1.0).overdue(Waiting(1, 7, 0.5)) is None
    assert Waiting(0, None, 0.0).overdue(Waiting(0, None, 0.0)) is None
