"""The example service `examples/tally` as the chassis tests use it: a database, a group and faults of its own for each test."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from fastapi import APIRouter
from sqlalchemy import text
from sqlalchemy.engine import make_url

from examples.tally.app import runtime_of
from examples.tally.ask import publish
from examples.tally.domain import Tally, TallyDomain
from examples.tally.tables import create_tables
from schemas.envelope import Event
from schemas.requests import JobCancelRequested, JobRequested
from schemas.topics import JOBS
from services.chassis.kafka.publisher import outside_event
from services.chassis.kernel import store
from services.chassis.kernel.aggregate import Ref, States
from services.chassis.kernel.effects import Notification
from services.chassis.kernel.records import Logged
from services.chassis.postgres.transactions import Session
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.service import Service, assemble
from services.chassis.settings import ServiceSettings
from tests.databases import provide
from tests.log import read_all

_TABLES = (
    "tally", "inbox", "outbox", "dead_letter", "position", "log_identity", "standing", "replay", "sweep", "operational.ledger",
)  # fmt: skip


class ToyDomain(TallyDomain):
    """The example's domain with events that cannot be handled. Its prefix lets tests share a broker."""

    def __init__(self, service: str, prefix: str, delay: timedelta | None = None) -> None:
        super().__init__(service, prefix, delay)
        self.poison: Callable[[Event], bool] = lambda event: False
        """Returns whether an event cannot be handled."""

    def evolve(self, ref: Ref, state: Tally, event: Event, logged: Logged | None) -> Tally:
        if self.poison(event):
            raise ValueError("this job is poison")
        return super().evolve(ref, state, event, logged)


class Ledger:
    """Effects that write one row for each folded event, which shows that effects happen exactly once."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.refused: str | None = None
        """Id of an event that the database refuses with an error that does not name the record."""

    async def __call__(self, connection: Session, events: Sequence[Event], states: States) -> Sequence[Notification]:
        mine = [{"id": event.id} for event in events if event.data.job_id.startswith(self._prefix)]  # type: ignore[attr-defined]
        if self.refused in {row["id"] for row in mine}:
            await connection.execute(text("SELECT CAST('no number' AS int)"))
        if mine:
            await connection.execute(text("INSERT INTO ledger (id) VALUES (:id)"), mine)
        return ()


class Elsewhere(ServiceSettings):
    """Another deployment, whose services use other databases on the same server."""

    def database_url_for(self, service: str) -> str:
        url = make_url(super().database_url_for(service))
        return url.set(database=f"{url.database}_elsewhere").render_as_string(hide_password=False)


class Toy:
    """One toy service with its own database and consumer group on a shared broker."""

    def __init__(
        self,
        kafka: str,
        database_url: str,
        home: Path,
        *,
        name: str | None = None,
        delay: timedelta | None = None,
        elsewhere: bool = False,
        **more: Any,
    ) -> None:
        self.name = name or f"toy_{uuid4().hex[:8]}"
        self.prefix = f"job-{self.name.removeprefix('toy_')}-"
        self.delay = delay
        self.settings = (Elsewhere if elsewhere else ServiceSettings)(
            kafka_bootstrap=kafka, database_url=database_url, home=home, session_timeout_ms=6000, drain_seconds=5, **more
        )
        self.domain = ToyDomain(self.name, self.prefix, delay)
        self.ledger = Ledger(self.prefix)
        url = self.settings.database_url_for(self.name)
        self.engine = store.connect(url)
        self.transactions = store.transactions(url)
        """What batches run in."""

    async def create(self) -> None:
        """Create its database with all tables."""
        await provide(self.settings, self.name)
        await create_tables(self.engine)
        async with self.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE operational.ledger (id text)"))
        admin = AIOKafkaAdminClient(**self.settings.cluster.connection())
        await admin.start()
        await admin.create_topics([NewTopic(f"neuroweaver.{self.name}.dlq", 1, 1)])
        await admin.close()

    def runtime(self) -> Runtime:
        """Return a new runtime, like that of another process of this service."""
        return runtime_of(self.settings, self.name, self.domain, self.ledger)

    def service(self) -> Service:
        """Return a new service with a new runtime."""
        return assemble(self.runtime(), router=APIRouter())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Service]:
        """Run the service until it is ready."""
        service = self.service()
        async with service.lifespan():
            await until(lambda: service.health.ready, what=lambda: service.health.missing)
            yield service

    async def tallies(self) -> dict[str, Tally]:
        """Return its projection, by job id without the prefix."""
        async with self.engine.connect() as connection:
            rows = await connection.execute(text("SELECT key, CAST(state AS text) FROM tally"))
            return {key.removeprefix(self.prefix): Tally.model_validate_json(state) for key, state in rows}

    async def scalar(self, sql: str) -> Any:
        """Return one value of its database."""
        async with self.engine.connect() as connection:
            return await connection.scalar(text(sql))

    async def lose_database(self) -> None:
        """Empty its database, so that nothing is left of what it applied or read."""
        async with self.engine.begin() as connection:
            for table in _TABLES:
                await connection.execute(text(f"DELETE FROM {table}"))

    def requested(self, name: str, **fields: Any) -> Event:
        """Return a JobRequested of an outsider."""
        job_id = self.prefix + name
        return outside_event(
            "outside", JobRequested(job_id=job_id, request={"job_id": job_id, **fields}), correlation_id=job_id
        )

    def cancelled(self, name: str) -> Event:
        """Return a JobCancelRequested of an outsider, a later event of the same job."""
        job_id = self.prefix + name
        return outside_event("outside", JobCancelRequested(job_id=job_id), correlation_id=job_id)

    async def send(self, *events: Event) -> None:
        """Publish events in order as an outsider does. Raises KafkaError if one is not acknowledged."""
        await publish(self.settings.cluster, *events)

    async def log(self, topic: str = JOBS.name) -> list[Any]:
        """Return all records of a topic whose key is one of its jobs, in order per partition."""
        return [record for record in await read_all(self.settings.kafka_bootstrap, topic) if self.prefix in str(record.key)]


async def until(condition: Any, seconds: float = 120.0, what: Any = lambda: "") -> None:
    """Wait for `condition()` (plain or awaitable) to become true; fails with `what()` after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {seconds} s: {what()}")
        await asyncio.sleep(0.05)
