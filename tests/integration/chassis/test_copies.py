"""Copies of dead letters on their topic: none waits for another, and what cannot be copied is said."""

import hashlib
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.topics import REQUESTS
from services.chassis.kernel.deadletters import copies
from services.devstack.stack import DevStack
from tests.integration.chassis.test_relay import holds, refusal, to_send
from tests.limited import limited
from tests.log import read_all
from tests.toy import Toy, until


@pytest.fixture
def servers(own_stack: DevStack) -> DevStack:
    """Of its own, since what is sent here every service reads."""
    return own_stack


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
        await until(lambda: name in service.health.missing.get("copying", ""))
        await admin.create_topics([NewTopic(name, 1, 1)])
        await until(lambda: toy.scalar("SELECT count(*) = 0 FROM dead_letter WHERE NOT published"))
        await until(lambda: service.health.ready, what=lambda: service.health.missing)
    await admin.close()
