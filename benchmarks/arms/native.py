"""The least that the same promise can cost: bare aiokafka and asyncpg, the same rows, the same batches, the same durability.

No types, no domain, no retries: what a person would write by hand who needs just this one service.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import asyncpg
import uuid_utils
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from services.chassis.kernel.tables import HEADER_COLUMNS

_BATCH = 500
_LOCK = """SELECT topic, partition, next_offset FROM position
           WHERE (topic, partition) IN (SELECT * FROM unnest($1::text[], $2::int[])) ORDER BY topic, partition FOR UPDATE"""
_INBOX = """INSERT INTO inbox (source, id, identity, topic, partition, "offset", appended_at)
            SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::int[], $6::bigint[], $7::timestamptz[])
            ON CONFLICT DO NOTHING RETURNING id"""
_ABSENT = (
    'INSERT INTO tally (key) SELECT key FROM unnest($1::text[]) AS key ORDER BY key COLLATE "C" ON CONFLICT DO NOTHING'
)
_ROWS = """SELECT key, sequence, state::text, created_at, updated_at, offsets::text, own_event_id FROM tally
           WHERE key = ANY($1::text[]) ORDER BY key COLLATE "C" FOR UPDATE"""
_SAVE = """UPDATE tally AS old SET sequence = new.sequence, state = new.state::jsonb, created_at = new.at, updated_at = new.at,
                  offsets = new.offsets::jsonb, own_event_id = new.own
           FROM unnest($1::text[], $2::bigint[], $3::text[], $4::timestamptz[], $5::text[], $6::text[])
                AS new(key, sequence, state, at, offsets, own) WHERE old.key = new.key"""
_OUTBOX = f"""INSERT INTO outbox (aggregatetype, aggregateid, type, payload, {", ".join(HEADER_COLUMNS)})
              SELECT * FROM unnest({", ".join(f"${n}::text[]" for n in range(1, 5 + len(HEADER_COLUMNS)))})"""
_MOVE = """UPDATE position SET next_offset = moved.next_offset
           FROM unnest($1::text[], $2::int[], $3::bigint[]) AS moved(topic, partition, next_offset)
           WHERE position.topic = moved.topic AND position.partition = moved.partition"""
_READ = f"SELECT position, aggregateid, payload, {', '.join(HEADER_COLUMNS)} FROM outbox ORDER BY position LIMIT 1000"
_REMOVE = "DELETE FROM outbox WHERE position = ANY($1::bigint[])"
_REASONS = [{"field": "pipeline", "value": "none", "message": "there is no such pipeline", "remedy": "choose another"}]


async def apply(connection: asyncpg.Connection, topic: str, batch: dict[TopicPartition, list[Any]]) -> None:
    """Apply one batch in one transaction."""
    partitions = sorted(partition.partition for partition in batch)
    async with connection.transaction():
        locked = await connection.fetch(_LOCK, [topic] * len(partitions), partitions)
        positions = {row["partition"]: row["next_offset"] for row in locked}
        events = []
        for partition, records in batch.items():
            for record in records:
                if record.offset >= positions[partition.partition]:
                    headers = {name: value.decode() for name, value in record.headers}
                    events.append((record, headers, json.loads(record.value)))
            positions[partition.partition] = records[-1].offset + 1
        entries = [
            (
                headers["ce_source"], headers["ce_id"], blake2b(record.value, digest_size=16).digest(), topic, record.partition,
                record.offset, datetime.fromtimestamp(record.timestamp / 1000, UTC),
            )
            for record, headers, _ in events
        ]  # fmt: skip
        new = await connection.fetch(_INBOX, *map(list, zip(*entries, strict=True)))
        known = {row["id"] for row in new}
        events = [event for event in events if event[1]["ce_id"] in known]
        keys = [body["job_id"] for _, _, body in events]
        await connection.execute(_ABSENT, keys)
        rows = {row["key"]: row for row in await connection.fetch(_ROWS, keys)}
        now = datetime.now(UTC)
        said = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
        save: tuple[list[Any], ...] = ([], [], [], [], [], [])
        out: tuple[list[Any], ...] = tuple([] for _ in range(4 + len(HEADER_COLUMNS)))
        for record, headers, body in events:
            key = body["job_id"]
            state, offsets = json.loads(rows[key]["state"]), json.loads(rows[key]["offsets"])
            state |= {
                "correlation_id": key,
                "opened_by": headers["ce_id"],
                "traceparent": headers["ce_traceparent"],
                "requests": state.get("requests", 0) + 1,
                "requester": body["requester"],
                "refused": 1,
            }
            offsets[f"{record.topic}:{record.partition}"] = record.offset
            event_id = str(uuid_utils.uuid7())
            at = datetime.fromisoformat(headers["ce_time"])
            for column, value in zip(save, (key, 1, json.dumps(state), at, json.dumps(offsets), event_id), strict=True):
                column.append(value)
            payload = json.dumps({"job_id": key, "reasons": _REASONS})
            attributes = (
                "1.0", event_id, "neuroweaver/benchmark", "neuroweaver.JobRejected", said, key,
                "urn:neuroweaver:JobRejected:1", key, headers["ce_id"], headers["ce_traceparent"], "0000000000000001",
            )  # fmt: skip
            for column, value in zip(
                out, ("neuroweaver.jobs", key, "neuroweaver.JobRejected", payload, *attributes), strict=True
            ):
                column.append(value)
        await connection.execute(_SAVE, *save)
        await connection.execute(_OUTBOX, *out)
        await connection.execute(
            _MOVE, [topic] * len(partitions), partitions, [positions[partition] for partition in partitions]
        )


async def consume(bootstrap: str, url: str, topic: str, filled: asyncio.Event) -> None:
    """Apply batches one after the other."""
    connection = await asyncpg.connect(url, server_settings={"search_path": "projection,operational"})
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=f"native-{topic}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    while not consumer.assignment():
        await asyncio.sleep(0.05)
    for partition in consumer.assignment():
        await connection.execute(
            "INSERT INTO position VALUES ($1, $2, 0) ON CONFLICT DO NOTHING", topic, partition.partition
        )
    while True:
        batch = await consumer.getmany(timeout_ms=20, max_records=_BATCH)
        if batch:
            await apply(connection, topic, batch)
            filled.set()


async def relay(bootstrap: str, url: str, topic: str, filled: asyncio.Event) -> None:
    """Send the outbox to Kafka; a row is removed when it is acknowledged."""
    connection = await asyncpg.connect(url, server_settings={"search_path": "projection,operational"})
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, acks="all", max_batch_size=262_144)
    await producer.start()
    while True:
        await filled.wait()
        filled.clear()
        while rows := await connection.fetch(_READ):
            sent = []
            for row in rows:
                headers = [(name, row[name].encode()) for name in HEADER_COLUMNS if row[name]]
                headers.append(("content-type", b"application/json"))
                sent.append(
                    await producer.send(topic, row["payload"].encode(), row["aggregateid"].encode(), headers=headers)
                )
            await asyncio.gather(*sent)
            await connection.execute(_REMOVE, [row["position"] for row in rows])


async def main(bootstrap: str, url: str, topic: str, answers: str) -> None:
    """Run the arm until standard input ends."""
    filled = asyncio.Event()
    loops = [
        asyncio.create_task(consume(bootstrap, url, topic, filled)), asyncio.create_task(relay(bootstrap, url, answers, filled)),
    ]  # fmt: skip
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await asyncio.wait([*loops, asyncio.ensure_future(ended)], return_when=asyncio.FIRST_COMPLETED)
    for loop in loops:
        if loop.done():
            loop.result()
        loop.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
