"""An effect happens exactly once although delivery is at least once, against real Kafka and PostgreSQL."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from sqlalchemy import text

from schemas.envelope import encode
from schemas.generate.headers import DEAD_LETTER_HEADERS
from schemas.topics import JOBS, REQUESTS
from services.chassis.kafka.publisher import make_producer
from services.chassis.kernel.statements import INSERT_POSITION
from services.chassis.kernel.transaction import batch, commands
from services.chassis.kernel.transaction.writing import write
from tests.log import read_all
from tests.toy import Toy, until


async def applied(toy: Toy, count: int) -> bool:
    return len(await toy.tallies()) == count


async def test_a_request_is_decided_once_and_the_decision_appears_on_the_log(toy: Toy) -> None:
    async with toy.running():
        await toy.send(toy.requested("a"))
        await until(lambda: _published(toy, 1))
    (record,) = await toy.log()
    headers = dict(record.headers)
    assert headers["ce_type"] == b"neuroweaver.JobRejected"
    assert headers["ce_sequence"] == b"0000000000000001"
    assert (await toy.tallies())["a"].refused == 1


async def test_a_producers_duplicate_changes_nothing(toy: Toy) -> None:
    event = toy.requested("a")
    async with toy.running():
        await toy.send(event, event, event)
        await toy.send(event, toy.requested("b"))
        await until(lambda: _published(toy, 2))
    assert (await toy.tallies())["a"].requests == 1


async def test_own_events_that_come_back_are_skipped_but_move_the_position(toy: Toy) -> None:
    async with toy.running():
        await toy.send(toy.requested("a"))
        await until(lambda: _published(toy, 1))
        (record,) = await toy.log()
        await until(lambda: _position(toy, JOBS.name, record.partition, record.offset + 1))
    assert (await toy.tallies())["a"].refused == 1


async def test_a_crash_before_the_commit_leaves_nothing_behind_and_the_batch_is_applied_again(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*everything: Any, **options: Any) -> None:
        await write(*everything, **options)
        raise ConnectionResetError("the process died here")

    async with toy.running() as service:
        monkeypatch.setattr(commands, "write", crash)
        await toy.send(toy.requested("a"))
        await until(lambda: "died here" in service.health.missing.get("handling", ""))
    monkeypatch.undo()
    assert await toy.tallies() == {}
    assert await toy.scalar("SELECT count(*) FROM outbox") == 0
    async with toy.running():
        await until(lambda: _published(toy, 1))
    assert await toy.scalar("SELECT count(*) FROM ledger") == 2


async def test_after_a_crash_behind_the_commit_the_redelivered_batch_has_no_effect(toy: Toy) -> None:
    async with toy.running():
        await toy.send(toy.requested("a"), toy.requested("b"))
        await until(lambda: _published(toy, 2))
    await _forget_committed_offsets(toy)
    async with toy.running():
        await toy.send(toy.requested("c"))
        await until(lambda: _published(toy, 3))
    tallies = await toy.tallies()
    assert {name: (tally.requests, tally.refused) for name, tally in tallies.items()} == dict.fromkeys("abc", (1, 1))
    assert await toy.scalar("SELECT count(*) = count(DISTINCT id) FROM ledger")


async def test_two_consumers_that_both_believe_they_own_a_partition_cannot_both_apply_a_record(toy: Toy) -> None:
    await toy.send(*(toy.requested(f"{number}") for number in range(20)))
    records = [
        record for record in await read_all(toy.settings.kafka_bootstrap, REQUESTS.name) if toy.prefix in str(record.key)
    ]
    groups: dict[tuple[str, int], list[Any]] = {}
    for record in records:
        groups.setdefault((record.topic, record.partition), []).append(record)
    async with toy.engine.begin() as connection:
        for topic, partition in groups:
            await connection.execute(INSERT_POSITION, {"topic": topic, "partition": partition})
    start = dict.fromkeys(groups, 0)
    runtime = toy.runtime()
    decider, poll = batch.Decider(runtime.engine, toy.domain, runtime.effects), batch.Poll(groups, start)
    first = await batch.apply_batch(decider, poll)
    second = await batch.apply_batch(decider, poll)
    await runtime.engine.dispose()
    assert (first.applied, second.applied, second.skipped) == (20, 0, 20)
    assert await toy.scalar("SELECT count(*) FROM outbox") == 20


async def test_a_batch_that_starts_above_the_position_is_rewound(toy: Toy) -> None:
    async with toy.running():
        await toy.send(toy.requested("a"))
        await until(lambda: _published(toy, 1))
        async with toy.engine.begin() as connection:  # an older projection is swapped in
            await connection.execute(text("UPDATE position SET next_offset = 0"))
            await connection.execute(text("DELETE FROM tally"))
            await connection.execute(text("DELETE FROM inbox"))
        await toy.send(toy.cancelled("a"), *(toy.requested(f"{number}") for number in range(12)))  # all on their way again
        await until(lambda: applied(toy, 13))
    assert {tally.refused for tally in (await toy.tallies()).values()} == {1}


async def test_garbage_in_the_middle_of_a_batch_becomes_dead_letters_and_the_rest_flows(toy: Toy) -> None:
    producer: AIOKafkaProducer = make_producer(toy.settings.cluster, "garbage")
    await producer.start()
    key = (toy.prefix + "a").encode()
    good, headers = encode(toy.requested("a"))
    garbage = [
        (b"\xff\xfe not JSON", headers),
        (b"{}", [("ce_id", b"\xff")]),
        (b'{"no": "job id"}', [*(h for h in headers if h[0] != "ce_id"), ("ce_id", b"other")]),
        (b"[]", []),
    ]
    for value, with_headers in (garbage[0], garbage[1], (good, headers), garbage[2], garbage[3]):
        await producer.send(REQUESTS.name, value, key, headers=with_headers)
    await producer.stop()
    async with toy.running():
        await until(lambda: _published(toy, 1))
        mine = f"SELECT count(*) FROM dead_letter WHERE convert_from(key, 'UTF8') LIKE '{toy.prefix}%'"
        await until(lambda: toy.scalar(mine + " AND published HAVING count(*) = 4"))
    copies = await read_all(toy.settings.kafka_bootstrap, f"neuroweaver.{toy.name}.dlq")
    mine_copied = [record for record in copies if toy.prefix in str(record.key)]
    assert {record.value for record in mine_copied} == {value for value, _ in garbage}
    added = {name for name, _ in DEAD_LETTER_HEADERS}
    assert all(added <= {name for name, _ in record.headers} for record in mine_copied)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_records_are_read_however_their_producer_compressed_them(toy: Toy, codec: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=toy.settings.kafka_bootstrap, compression_type=codec)
    await producer.start()
    value, headers = encode(toy.requested("a"))
    await producer.send_and_wait(REQUESTS.name, value, (toy.prefix + "a").encode(), headers=headers)
    await producer.stop()
    async with toy.running():
        await until(lambda: _published(toy, 1))


async def test_what_falls_due_is_decided_without_an_event(kafka: str, database_url: str, tmp_path: Path) -> None:
    toy = Toy(kafka, database_url, tmp_path, delay=timedelta(seconds=1))
    await toy.create()
    async with toy.running():
        asked = toy.requested("a")
        await toy.send(asked)
        await until(lambda: _published(toy, 2))
    await toy.engine.dispose()
    first, second = await toy.log()
    assert second.timestamp / 1000 > asked.time.timestamp() + 0.9, "it was decided before it was due"
    assert dict(second.headers)["ce_causationid"] in (
        dict(first.headers)["ce_id"],
        asked.id.encode(),
    )  # it may be due at once


async def _published(toy: Toy, count: int) -> bool:
    return len(await toy.log()) == count


async def _position(toy: Toy, topic: str, partition: int, offset: int) -> bool:
    found = await toy.scalar(f"SELECT next_offset FROM position WHERE topic = '{topic}' AND partition = {partition}")
    return bool(found is not None and found >= offset)


async def _forget_committed_offsets(toy: Toy) -> None:
    """As after a crash between the database's commit and Kafka's: the group's offsets are behind."""
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(
        bootstrap_servers=toy.settings.kafka_bootstrap, group_id=f"neuroweaver-{toy.name}", enable_auto_commit=False
    )
    await consumer.start()
    partitions = [TopicPartition(topic.name, n) for topic in (REQUESTS, JOBS) for n in range(topic.partitions)]
    consumer.assign(partitions)
    await consumer.commit(dict.fromkeys(partitions, 0))
    await consumer.stop()
