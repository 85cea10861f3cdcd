"""An executor without a broker for tests: a real database, real transactions, workers and a scripted runner."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any
from uuid import uuid4

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, text

from schemas.base import EventData
from schemas.envelope import Event, encode
from schemas.jobs import StepResult
from schemas.topics import JOBS
from services.chassis.executor.attempts import AttemptState, ExecutorDomain
from services.chassis.executor.dispatcher import worker_tasks
from services.chassis.executor.runner import Completed, Outcome, StepRunner, Stopped, Work, WorkContext
from services.chassis.executor.schema import (
    add_slots_to_executor_tables,
    add_usage_to_executor_tables,
    create_executor_tables,
)
from services.chassis.executor.slots import Machine
from services.chassis.executor.work import WorkEffects
from services.chassis.kernel.aggregate import Ref
from services.chassis.kernel.statements import INSERT_POSITION
from services.chassis.kernel.transaction import batch
from services.chassis.migrations.own_ids import add_own_ids
from services.chassis.serving.runtime import Runtime
from services.chassis.settings import ServiceSettings
from tests.databases import provide
from tests.log import HeldRecord
from tests.steps import an_event


class Progress:
    """Replaces the publisher: stores published events without a broker."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def publish_lossy(self, event: Event) -> None:
        self.events.append(event)


class Script:
    """A runner that the test controls: it waits for `gate` or a stop, then returns `outcome`."""

    def __init__(self, outcome: Outcome | Callable[[Work, WorkContext], Awaitable[Outcome]] | None = None) -> None:
        self.outcome = outcome or Completed(StepResult(metrics={"n": 1.0}))
        self.gate = asyncio.Event()
        self.runs: list[tuple[Work, WorkContext]] = []

    async def run(self, work: Work, context: WorkContext) -> Outcome:
        self.runs.append((work, context))
        if callable(self.outcome):
            return await self.outcome(work, context)
        waits = [asyncio.create_task(event.wait()) for event in (self.gate, context.stop)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return Stopped() if context.stop.is_set() else self.outcome


class Executor:
    """A trainer service with its own database."""

    def __init__(self, database_url: str, home: Path, *, name: str | None = None, **settings: Any) -> None:
        self.database_url = database_url
        self.name = name or f"executor_{uuid4().hex[:8]}"
        self.settings = ServiceSettings(
            database_url=database_url, home=home, kafka_bootstrap="127.0.0.1:1", drain_seconds=5, **settings
        )
        self.domain = ExecutorDomain("trainer")
        self.progress = Progress()
        self.runtime = self.process()
        self._offset = 0

    def process(self, **settings: Any) -> Runtime:
        """Return a runtime like that of a process of this service."""
        runtime = Runtime(
            self.settings.model_copy(update=settings), self.name, self.domain, topics=(JOBS,), effects=WorkEffects()
        )  # fmt: skip
        runtime.publisher = self.progress  # type: ignore[assignment]
        return runtime

    async def create(self) -> None:
        """Create its database with all tables."""
        await provide(self.settings, self.name)
        async with self.runtime.engine.begin() as connection:
            await connection.run_sync(_create_tables)
        await self.empty()

    async def empty(self) -> None:
        """Delete all rows of its database."""
        async with self.runtime.engine.begin() as connection:
            await connection.execute(text("TRUNCATE attempt, work, inbox, outbox, position"))
            await connection.execute(INSERT_POSITION, {"topic": JOBS.name, "partition": 0})

    async def deliver(self, *data: EventData) -> None:
        """Apply events of the orchestrator in one batch."""
        await self.deliver_events(*(an_event(item, seconds=self._offset + number) for number, item in enumerate(data)))

    async def deliver_events(self, *events: Event) -> None:
        records = []
        for number, event in enumerate(events):
            value, headers = encode(event)
            records.append(HeldRecord(JOBS.name, 0, self._offset + number, int(time() * 1000), b"", value, list(headers)))
        partition = (JOBS.name, 0)
        decider = batch.Decider(self.runtime.engine, self.domain, self.runtime.effects)
        await batch.apply_batch(decider, batch.Poll({partition: records}, {partition: self._offset}))
        self._offset += len(events)

    @asynccontextmanager
    async def working(
        self, runner: StepRunner, *, own: bool = False, machine: Machine | None = None, **settings: Any
    ) -> AsyncIterator[asyncio.Event]:
        """Run a process with workers during the block; setting the event, or leaving the block, drains them. `own`: use
        `self.runtime`, whose health a test may read; `machine`: what attempts may use, if not what is here.
        """
        runtime, stop = self.runtime if own else self.process(**settings), asyncio.Event()
        end = asyncio.Event()
        listening = asyncio.create_task(runtime.notifications.run(end))
        loops = [asyncio.ensure_future(task(stop)) for task in worker_tasks(runtime, runner, machine=machine)]
        try:
            yield stop
        finally:
            stop.set()
            await asyncio.gather(*loops)
            end.set()
            await listening
            await runtime.engine.dispose()

    async def state(self, ref: Ref) -> AttemptState:
        async with self.runtime.engine.connect() as connection:
            query = text("SELECT CAST(state AS text) FROM attempt WHERE key = :key")
            return AttemptState.model_validate_json(await connection.scalar(query, {"key": ref.key}) or "{}")

    async def status(self, ref: Ref) -> str | None:
        return (await self.state(ref)).status

    async def said(self, ref: Ref) -> list[str]:
        """Return the types of own events about an attempt, in order."""
        return [str(row.ce_type).removeprefix("neuroweaver.") for row in await self.outbox(ref)]

    async def outbox(self, ref: Ref) -> list[Any]:
        query = "SELECT * FROM outbox WHERE ce_subject = :key ORDER BY position"
        return await self.rows(query, key=ref.key)

    async def rows(self, query: str, **parameters: Any) -> list[Any]:
        async with self.runtime.engine.connect() as connection:
            return list(await connection.execute(text(query), parameters))

    async def execute(self, statement: str, **parameters: Any) -> None:
        async with self.runtime.engine.begin() as connection:
            await connection.execute(text(statement), parameters)

    async def lapse(self) -> None:
        """Let every lease expire, as if its holder had not renewed it."""
        await self.execute("UPDATE work SET leased_until = clock_timestamp() WHERE lease IS NOT NULL")

    async def work(self) -> list[Any]:
        return await self.rows("SELECT * FROM work ORDER BY key")


def _create_tables(connection: Connection) -> None:
    operations = Operations(MigrationContext.configure(connection))
    create_executor_tables(operations)
    add_slots_to_executor_tables(operations)
    add_usage_to_executor_tables(operations)
    add_own_ids(operations, "attempt")
