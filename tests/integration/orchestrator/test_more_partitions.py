"""Partitions of the topics are raised while jobs run: keys move, jobs go on, and the log says the same as the rows."""

from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from sqlalchemy import text

from schemas.topics import JOBS, REQUESTS
from services.chassis.devstack.settings import DevStackSettings
from services.chassis.devstack.stack import running
from services.chassis.replay.rebuild import rebuild, verify
from services.chassis.replay.row import rebuild_row
from services.orchestrator.domain.job import job_ref
from tests.conftest import create_topics
from tests.log import read_all
from tests.orchestrator import Orchestrator
from tests.toy import until

NAMES = [f"open-{number}" for number in range(4)]


async def raise_partitions(kafka: str, number: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_partitions({topic.name: NewPartitions(number) for topic in (REQUESTS, JOBS)})
    await admin.close()


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
        async with first.running():
            for name in NAMES:
                await first.ask(first.request(name))
            for name in NAMES:
                await first.complete(first.prefix + name, "prepare")
                await until(lambda name=name: first.asked(first.prefix + name, "train"))
            await raise_partitions(kafka, 8)
            assert first.runtime is not None
            await until(lambda: _read(first, 8), 90)
            await first.disconnect()
            for name in NAMES:
                await first.complete(first.prefix + name, "train", "register")
                await first.status(name, "completed")
            await until(lambda: _moved(kafka, first), 90)
            projection = first.runtime.projection
            assert (await verify(projection)).differences == 0
            assert (await rebuild(projection)).differences == 0
            for name in NAMES:
                assert not await rebuild_row(projection, job_ref(first.prefix + name))
            before = {name: await first.job(name) for name in NAMES}
        second = Orchestrator(kafka, database_url, tmp_path / "second")
        second.prefix, second.source = first.prefix, first.source
        async with second.running():  # its database is new, and is restored from the log
            assert {name: await second.job(name) for name in NAMES} == before


async def _read(orchestrator: Orchestrator, number: int) -> bool:
    """Whether the service reads all partitions."""
    assert orchestrator.runtime is not None
    async with orchestrator.runtime.engine.connect() as connection:
        found = await connection.scalar(text(f"SELECT count(*) FROM position WHERE topic = '{JOBS.name}'"))
    return bool(found == number)


async def _moved(kafka: str, orchestrator: Orchestrator) -> bool:
    """Whether some job's own events lie on two partitions; another job tells whether the relay knows the new ones by now."""
    if await split_jobs(kafka, orchestrator.source):
        return True
    name = f"later-{id(object())}"
    await orchestrator.ask(orchestrator.request(name))
    await orchestrator.status(name, "running")
    return False
