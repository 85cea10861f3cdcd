"""A fuzzed log in front of a running orchestrator: nothing stops, nothing fails, everybody who can be answered is."""

import base64
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from sqlalchemy import text

from schemas.topics import JOBS, REQUESTS
from services.audit.causal_order import causal_groups
from services.audit.export import export
from services.audit.summary import summarise
from services.audit.verdict import verify_export
from services.chassis.kernel import log, store
from services.chassis.kernel.deadletters import repository
from services.chassis.kernel.records import record_id_of
from services.chassis.replay import rebuild as replay
from services.cli.topic_reader import as_json, as_text, records_of
from tests.fuzz.records import Fuzz
from tests.orchestrator import Orchestrator
from tests.raw_batches import batch_of, hand_over
from tests.toy import until

_STANDING = text("SELECT partition, next_offset FROM operational.position WHERE topic = :topic")
_UNANSWERED = text("SELECT key FROM projection.job WHERE key = ANY(CAST(:keys AS text[])) AND status <> 'requested'")
_LETTERS = text("SELECT state, count(*) FROM operational.dead_letter GROUP BY state")


@dataclass
class Fuzzed:
    """The result of a run."""

    seed: int
    records: int = 0
    refused: int = 0
    """Batches that the broker refused."""
    asked: set[str] = field(default_factory=set)
    """Jobs that must get an answer."""
    letters: Counter[str] = field(default_factory=Counter)


async def fuzz(
    orchestrator: Orchestrator, folder: Path, seed: int, more: Callable[[Fuzzed], bool], check_every: int = 2000
) -> Fuzzed:
    """Send batches while `more` returns True, then check everything. Raises AssertionError for a fault."""
    found = Fuzzed(seed)
    cluster = orchestrator.settings.cluster
    source = Fuzz(seed, orchestrator.prefix, REQUESTS.partitions)
    producer = AIOKafkaProducer(**cluster.connection(), enable_idempotence=False, acks="all", max_request_size=2**26)
    await producer.start()
    try:
        while more(found):
            batch = source.batch()
            raw = batch_of([one.record for one in batch.sent], **batch.how)
            try:
                await hand_over(producer, REQUESTS.name, batch.partition, raw, len(batch.sent))
            except KafkaError:
                found.refused += 1
                continue
            found.records += len(batch.sent)
            found.asked |= {one.job_id for one in batch.sent if one.job_id}
            if found.records % check_every < len(batch.sent):
                await _all_well(orchestrator, found)
    finally:
        await producer.stop()
    await _all_well(orchestrator, found)
    await _every_reader_goes_on(orchestrator, folder)
    return found


async def _all_well(orchestrator: Orchestrator, found: Fuzzed) -> None:
    runtime = orchestrator.runtime
    assert runtime is not None
    ends = {place[1]: end for place, (_, end) in (await log.bounds(orchestrator.settings.cluster, [REQUESTS.name])).items()}

    async def caught_up() -> bool:
        async with runtime.engine.connect() as connection:
            rows = await connection.execute(_STANDING, {"topic": REQUESTS.name})
            standing: dict[int, int] = {number: offset for number, offset in rows.all()}  # noqa: C416
        return all(standing.get(partition, 0) >= end for partition, end in ends.items() if end)

    await until(caught_up, seconds=180, what=lambda: (found.seed, runtime.health.missing))
    async with runtime.engine.connect() as connection:
        answered = set((await connection.execute(_UNANSWERED, {"keys": sorted(found.asked)})).scalars())
        found.letters = Counter(dict(list((await connection.execute(_LETTERS)).all())))
    missing = sorted(found.asked - answered)
    assert not missing, (
        f"seed {found.seed}: {len(missing)} of {len(found.asked)} jobs are not answered: {await _about(orchestrator, missing[0])}"
    )
    assert not found.letters["failed"], f"seed {found.seed}: handling failed: {found.letters}; see dead_letter"
    await until(lambda: runtime.health.ready, what=lambda: (found.seed, runtime.health.missing))


async def _about(orchestrator: Orchestrator, job_id: str) -> list[str]:
    """Return every record about a job, with its result."""
    engine = orchestrator.runtime.engine if orchestrator.runtime else None
    assert engine is not None
    read_envelope = [job_id]
    for record in await records_of(orchestrator.settings.cluster, REQUESTS.name):
        spelt = (job_id.encode(), job_id.encode("utf-16-le"), base64.b64encode(job_id.encode())[4:-4])
        if any(text in (record.value or b"") for text in spelt) or spelt[0] == record.key:
            async with engine.connect() as connection:
                letter = await repository.show(connection, record_id_of(record))
            read_envelope.append(f"{record_id_of(record)} {record.headers} {record.value!r:.600} {letter and letter.error}")
    return read_envelope


async def _every_reader_goes_on(orchestrator: Orchestrator, folder: Path) -> None:
    runtime, cluster = orchestrator.runtime, orchestrator.settings.cluster
    assert runtime is not None
    await until(lambda: _nothing_waits(orchestrator), seconds=120)
    assert (await replay.verify(runtime.projection)).differences == 0
    records = [*await records_of(cluster, REQUESTS.name), *await records_of(cluster, JOBS.name)]
    for record in records:
        as_json(record).encode()
        as_text(record).encode()
    causal_groups([summarise(record) for record in records])
    await export(cluster, folder, [REQUESTS.name])
    assert verify_export(folder).holds
    listed = await orchestrator.http.get("/dead-letters/orchestrator", params={"limit": 1000})
    assert listed.status_code == 200


async def _nothing_waits(orchestrator: Orchestrator) -> bool:
    engine = store.connect(orchestrator.settings.database_url_for("orchestrator"), pool_size=1)
    try:
        async with engine.connect() as connection:
            return bool(await connection.scalar(text("SELECT count(*) = 0 FROM operational.outbox")))
    finally:
        await engine.dispose()
