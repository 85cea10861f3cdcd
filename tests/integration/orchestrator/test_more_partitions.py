"""Partitions of the topics are raised while jobs run: keys move, jobs go on, and the log says the same as the rows."""

from itertools import count, islice
from pathlib import Path
from uuid import uuid4

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.partitioner import murmur2
from sqlalchemy import text

from schemas.topics import JOBS, REQUESTS
from services.chassis.replay.rebuild import rebuild, verify
from services.chassis.replay.row import rebuild_row
from services.devstack.settings import DevStackSettings
from services.devstack.stack import running
from services.orchestrator.domain.job import job_ref
from tests.conftest import create_topics
from tests.log import read_all
from tests.orchestrator import Orchestrator
from tests.toy import until

JOBS_SENT = 4


async def raise_partitions(kafka: str, number: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_partitions({topic.name: NewPartitions(number) for topic in (REQUESTS, JOBS)})
    await admin.close()


def moving(prefix: str) -> list[str]:
    """Names of jobs whose key lies on another one of 8 partitions than of 6."""
    names = (f"open-{number}" for number in count())
    hashed = ((name, murmur2((prefix + name).encode()) & 0x7FFFFFFF) for name in names)
    return list(islice((name for name, number in hashed if number % 6 != number % 8), JOBS_SENT))


async def split_jobs(kafka: str, source: str) -> set[bytes]:
    """Jobs whose own events lie on more than one partition."""
    places: dict[bytes, set[int]] = {}
    for record in await read_all(kafka, JOBS.name):
        if dict(record.headers)["ce_source"] == source.encode():
            places.setdefault(record.key, set()).add(record.partition)
    return {key for key, partitions in places.items() if len(partitions) > 1}


async def test_jobs_go_on_and_every_replay_merges_their_events(database_url: str, tmp_path: Path) -> None:
    settings = DevStackSettings(home=tmp_path / "stack", kafka_bootstrap=None, database_url=database_url)
    with running(settings) as stack:
        create_topics(stack)
        kafka = stack.kafka_bootstrap
        first = Orchestrator(kafka, database_url, tmp_path / "first")
        names = moving(first.prefix)
        async with first.running():
            for name in names:
                await first.ask(first.request(name))
            for name in names:
                await first.complete(first.prefix + name, "prepare")
                await until(lambda name=name: first.asked(first.prefix + name, "train"))
            await raise_partitions(kafka, 8)
            assert first.runtime is not None
            await until(lambda: _read(first, 8), 90)
            await until(lambda: _written(kafka, first), 90)
            await first.disconnect()
            for name in names:
                await first.complete(first.prefix + name, "train", "register")
                await first.status(name, "completed")
            assert len(await split_jobs(kafka, first.source)) == JOBS_SENT
            projection = first.runtime.projection
            assert (await verify(projection)).differences == 0
            assert (await rebuild(projection)).differences == 0
            for name in names:
                assert not await rebuild_row(projection, job_ref(first.prefix + name))
            before = {name: await first.job(name) for name in names}
        second = Orchestrator(kafka, database_url, tmp_path / "second")
        second.prefix, second.source = first.prefix, first.source
        async with second.running():  # its database is new, and is restored from the log
            assert {name: await second.job(name) for name in names} == before


async def _read(orchestrator: Orchestrator, number: int) -> bool:
    """Whether the service reads all partitions."""
    assert orchestrator.runtime is not None
    async with orchestrator.runtime.engine.connect() as connection:
        found = await connection.scalar(text(f"SELECT count(*) FROM position WHERE topic = '{JOBS.name}'"))
    return bool(found == number)


async def _written(kafka: str, orchestrator: Orchestrator) -> bool:
    """Whether the relay knows the new partitions: one job after the other tells, until one has a key that lies there."""
    name = f"later-{uuid4().hex[:8]}"
    await orchestrator.ask(orchestrator.request(name))
    await orchestrator.status(name, "running")
    mine = orchestrator.source.encode()
    return any(r.partition > 5 for r in await read_all(kafka, JOBS.name) if dict(r.headers)["ce_source"] == mine)
