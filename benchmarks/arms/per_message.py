"""The handler that people usually write: FastStream message by message, a SQLAlchemy session each, the same tables."""

import asyncio
import sys
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated, Any

from aiokafka import AIOKafkaProducer
from faststream import AckPolicy, Context
from faststream.kafka import KafkaBroker
from pydantic import BaseModel
from sqlalchemy import MetaData, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from benchmarks.domain import TABLE
from schemas.ids import new_id
from services.chassis.kernel import store
from services.chassis.kernel.records import Record, appended_at
from services.chassis.kernel.tables import HEADER_COLUMNS, aggregate_table, operational_tables

_METADATA = MetaData()
operational_tables(_METADATA)
_TALLY = aggregate_table(_METADATA, TABLE)
_INBOX, _OUTBOX = _METADATA.tables["operational.inbox"], _METADATA.tables["operational.outbox"]
_REASONS = [{"field": "pipeline", "value": "none", "message": "there is no such pipeline", "remedy": "choose another"}]


class Request(BaseModel):
    """A request, as the handler receives it."""

    job_id: str
    requester: str


async def handle(session: AsyncSession, request: Request, headers: dict[str, str], record: Record) -> None:
    """Handle one message: write inbox, row and outbox."""
    event_id, key = new_id(), request.job_id
    seen = {
        "source": headers["ce_source"], "id": headers["ce_id"], "topic": record.topic, "partition": record.partition,
        "offset": record.offset, "appended_at": appended_at(record), "identity": blake2b(record.value or b"", digest_size=16).digest(),
    }  # fmt: skip
    fresh = insert(_INBOX).values(seen).on_conflict_do_nothing()
    if (await session.execute(fresh.returning(_INBOX.c.id))).scalar_one_or_none() is None:
        return
    await session.execute(insert(_TALLY).values(key=key).on_conflict_do_nothing())
    row = (await session.execute(select(_TALLY).where(_TALLY.c.key == key).with_for_update())).mappings().one()
    now = datetime.now(UTC)
    state = {**row["state"], "correlation_id": key, "opened_by": headers["ce_id"], "requests": 1, "refused": 1}
    state |= {"requester": request.requester, "traceparent": headers["ce_traceparent"]}
    values = {"sequence": 1, "state": state, "created_at": now, "updated_at": now, "own_event_id": event_id}
    await session.execute(
        _TALLY.update()
        .where(_TALLY.c.key == key)
        .values(**values, offsets={f"{record.topic}:{record.partition}": record.offset})
    )
    attributes = (
        "1.0", event_id, "neuroweaver/benchmark", "neuroweaver.JobRejected", now.isoformat(), key,
        "urn:neuroweaver:JobRejected:1", key, headers["ce_id"], headers["ce_traceparent"], "0000000000000001",
    )  # fmt: skip
    payload = Rejected(job_id=key, reasons=_REASONS).model_dump_json()
    known: dict[str, Any] = dict(zip(HEADER_COLUMNS, attributes, strict=True))
    await session.execute(
        insert(_OUTBOX).values(
            aggregatetype="neuroweaver.jobs", aggregateid=key, type="neuroweaver.JobRejected", payload=payload, **known
        )
    )


class Rejected(BaseModel):
    """The answer to a request."""

    job_id: str
    reasons: list[dict[str, str]]


async def publish(sessions: async_sessionmaker[AsyncSession], producer: AIOKafkaProducer, topic: str) -> None:
    """Publish the outbox row by row."""
    async with sessions() as session, session.begin():
        rows = (await session.execute(select(_OUTBOX).order_by(_OUTBOX.c.position).limit(100))).mappings().all()
        for row in rows:
            headers = [(name, row[name].encode()) for name in HEADER_COLUMNS if row[name]]
            await producer.send_and_wait(topic, row["payload"].encode(), row["aggregateid"].encode(), headers=headers)
            await session.execute(delete(_OUTBOX).where(_OUTBOX.c.position == row["position"]))


async def main(bootstrap: str, url: str, topic: str, answers: str) -> None:
    """Run the arm until standard input ends."""
    engine = store.connect(url)
    sessions = async_sessionmaker(engine)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, acks="all")
    await producer.start()
    broker = KafkaBroker(bootstrap, logger=None)

    @broker.subscriber(topic, group_id=f"message-{topic}", auto_offset_reset="earliest", ack_policy=AckPolicy.NACK_ON_ERROR)
    async def on_request(request: Request, message: Annotated[Any, Context("message")]) -> None:
        record = message.raw_message
        headers = {name: value.decode() for name, value in record.headers}
        async with sessions() as session, session.begin():
            await handle(session, request, headers, record)
        await publish(sessions, producer, answers)

    await broker.start()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await broker.stop()
    await producer.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
