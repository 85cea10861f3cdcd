"""The chassis as it is: consumer, one transaction per batch, relay."""

import asyncio
import sys

from sqlalchemy import MetaData

from benchmarks.domain import TABLE, TallyDomain
from benchmarks.load import PARTITIONS
from schemas.requests import JobRequested
from schemas.topics import JOBS, Topic
from services.chassis.kernel.tables import aggregate_table
from services.chassis.migrations.migrate import migrate
from services.chassis.migrations.provision import create_database
from services.chassis.process.gc_tuning import spare_the_collector
from services.chassis.process.logging import configure
from services.chassis.serving.runtime import Runtime
from services.chassis.settings import ServiceSettings


def runtime(bootstrap: str, database_url: str, service: str, topic: str, own: str = "") -> Runtime:
    """Return the service, which reads requests from the benchmark's topic and, if `own`, also its own events."""
    settings = ServiceSettings(kafka_bootstrap=bootstrap, database_url=database_url)
    requests = Topic(topic, "job id", (JobRequested,), ("outside",), PARTITIONS, None)
    return Runtime(settings, service, TallyDomain(service), topics=(requests, JOBS) if own else (requests,))


async def prepare(bootstrap: str, database_url: str, service: str, topic: str) -> None:
    """Create its database."""
    made = runtime(bootstrap, database_url, service, topic)
    await create_database(made.settings, service)
    await migrate(made.settings, service)
    metadata = MetaData()
    aggregate_table(metadata, TABLE)
    async with made.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await made.engine.dispose()


async def main(*arguments: str) -> None:
    """Run the service until standard input ends."""
    made = runtime(*arguments)
    async with made.run(()):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    configure("INFO")
    spare_the_collector()
    asyncio.run(main(*sys.argv[1:]))
