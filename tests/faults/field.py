"""A toy service under fire: its members are processes, its load goes on whatever happens, and its history is checked at the end."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from sqlalchemy import text

from schemas.envelope import encode
from schemas.topics import JOBS, REQUESTS
from services.chassis.kafka.publisher import make_producer, stop_quietly
from services.chassis.kernel import log, store
from services.chassis.kernel.records import Partition
from services.chassis.replay.rebuild import verify
from services.devstack.stack import DevStack
from tests.faults.history import Fact, Verdict, check
from tests.faults.member import Orders, Standing, main
from tests.log import event_of
from tests.recreating import remove_below
from tests.toy import Toy, until

_NURSERY = multiprocessing.get_context("forkserver")
_NURSERY.set_forkserver_preload(["tests.faults.member"])
"""Members are forked from a process that has imported what they need: that is most of what a start costs."""
PER_JOB = 5
_UNACKNOWLEDGED = 1000
_READY_SECONDS = 300
_SETTLE_SECONDS = 600
_VERIFIES = 3


@dataclass
class Member:
    """A process of the service."""

    process: ForkServerProcess
    log: Path
    """File of its log."""
    said: list[tuple[float, Standing]] = field(default_factory=list)
    """Its reports, with the time of the loop."""

    @classmethod
    def born(cls, orders: Orders, log: Path) -> "Member":
        """Start a process; a thread reads its reports."""
        ear, mouth = _NURSERY.Pipe(duplex=False)
        member = cls(_NURSERY.Process(target=main, args=(orders, str(log), mouth), daemon=True), log)
        member.process.start()
        mouth.close()
        threading.Thread(target=member._listen, args=(ear,), daemon=True).start()
        return member

    def _listen(self, ear: "Connection[object, Standing]") -> None:
        with ear, contextlib.suppress(EOFError, OSError):
            while True:
                self.said.append((time.monotonic(), ear.recv()))

    @property
    def ready(self) -> bool:
        """Whether its latest report says that it is ready."""
        return bool(self.said) and self.said[-1][1].ready

    @property
    def has_ended(self) -> bool:
        """Whether it lives no more."""
        return self.process.exitcode is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal if it is alive."""
        if not self.has_ended and self.process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    async def ended(self, seconds: float) -> int:
        """Wait for its return code. Raises AssertionError."""
        await until(lambda: self.has_ended, seconds, what=lambda: f"{self.process} does not end: {self.said[-1:]}")
        return int(self.process.exitcode or 0)


@dataclass
class Field:
    """One toy service on its own servers."""

    stack: DevStack
    toy: Toy
    facts: list[Fact] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    joined: int = 0
    """Number of processes that were started."""
    sent: int = 0
    way_to_database: str | None = None
    """URL by which members reach PostgreSQL, if it is not the server's own."""
    database_seconds: float = 30.0
    """Statement time-out of members."""

    async def join(
        self,
        *,
        point: str | None = None,
        times: int = 1,
        mended: bool = True,
        ready: bool = True,
        elsewhere: bool = False,
        instance: str | None = None,
    ) -> Member:
        """Start another process; returns when it is ready or has died at its fault point."""
        way = self.way_to_database or self.stack.database_url
        orders = Orders(
            self.stack.kafka_bootstrap, way, self.toy.name, point, times, mended, self.database_seconds, elsewhere, instance
        )
        self.joined += 1
        member = await asyncio.to_thread(Member.born, orders, self.toy.settings.home / f"member-{self.joined}.log")
        self.members.append(member)
        if ready:
            await until(lambda: member.ready or member.has_ended, _READY_SECONDS, what=lambda: member.said[-1:])
        return member

    async def leave(self, member: Member, number: signal.Signals) -> int:
        """End it with a signal and return its return code."""
        member.send(number)
        return await self.dies(member, self.toy.settings.drain_seconds + 120)

    async def dies(self, member: Member, seconds: float = 300) -> int:
        """Wait until it has ended. Raises AssertionError if it does not; `end` kills it later."""
        code = await member.ended(seconds)
        self.members.remove(member)
        return code

    async def end(self) -> None:
        """Kill all processes that are still running."""
        for member in list(self.members):
            await self.leave(member, signal.SIGKILL)
        await self.toy.engine.dispose()

    # load

    @asynccontextmanager
    async def load(self, events: int, per_second: float, *, poison_every: int = 0) -> AsyncIterator[None]:
        """Send `events` during the block, and the rest of them afterwards; every job has five, in order."""
        sending = asyncio.create_task(self._send(events, per_second, poison_every))
        try:
            yield
        except BaseException:
            sending.cancel()
            raise
        await sending

    async def _send(self, events: int, per_second: float, poison_every: int) -> None:
        producer: AIOKafkaProducer = make_producer(self.stack.cluster, "load")
        await producer.start()
        open_: set[asyncio.Future[Any]] = set()
        loop = asyncio.get_running_loop()
        begun, first = loop.time(), self.sent
        try:
            for fact, value, headers in self._events(events, poison_every):
                await asyncio.sleep(max(0.0, begun + (self.sent - first) / per_second - loop.time()))
                while len(open_) >= _UNACKNOWLEDGED:
                    await asyncio.wait(open_, return_when=asyncio.FIRST_COMPLETED)
                self.facts.append(fact)
                self.sent += 1
                future = await producer.send(REQUESTS.name, value, fact.key.encode(), headers=headers)
                future.add_done_callback(lambda done, fact=fact: self._acknowledged(done, fact))
                open_.add(future)
                future.add_done_callback(open_.discard)
            if open_:
                await asyncio.wait(set(open_))
        finally:
            await stop_quietly(producer)

    def _acknowledged(self, done: "asyncio.Future[Any]", fact: Fact) -> None:
        if not done.cancelled() and done.exception() is None:
            self.facts.append(Fact("acknowledged", fact.id, fact.key, fact.number))

    def _events(self, events: int, poison_every: int) -> Iterator[tuple[Fact, bytes, list[tuple[str, bytes]]]]:
        for index in range(events):
            job, number = divmod(index, PER_JOB)
            name = f"{self.sent - index + job}-{job}"
            if number == 0:
                poison = poison_every and job % poison_every == 0
                event = self.toy.requested(name, requester="poison" if poison else "relaycore")
            else:
                event = self.toy.cancelled(name)
            yield Fact("sent", event.id, self.toy.prefix + name, number), *encode(event)

    async def lose(self, place: Partition, share: float) -> int:
        """Remove this share of a partition's records from its beginning, whether read or not; returns its new first
        offset."""
        begin, end = (await log.bounds(self.stack.cluster, [place[0]]))[place]
        cut = begin + max(1, round((end - begin) * share))
        sent = {fact.id: fact for fact in self.facts if fact.kind == "sent"}
        async with log.read(self.stack.cluster, {place: (begin, cut)}) as chunks:
            async for chunk in chunks:
                for record in chunk:
                    if (event := event_of(record)) and (known := sent.get(event.id)):
                        self.facts.append(Fact("removed", known.id, known.key, known.number))
        await remove_below(self.stack.cluster, place, cut)
        return cut

    # results

    async def applied(self) -> int:
        """Return the jobs of which any event was applied."""
        return int(await self.toy.scalar("SELECT count(*) FROM tally"))

    async def settled(self) -> None:
        """Wait until all records are applied and all decisions are in the log. Raises AssertionError."""
        await until(self._is_settled, _SETTLE_SECONDS, what=lambda: "not everything was applied")

    async def _is_settled(self) -> bool:
        spans = await log.bounds(self.stack.cluster, [REQUESTS.name, JOBS.name])
        async with self.toy.engine.connect() as connection:
            positions = await store.positions(connection)
            waiting = await connection.scalar(text("SELECT count(*) FROM outbox"))
        return not waiting and all(positions.get(partition, 0) >= end for partition, (_, end) in spans.items() if end)

    async def history(self) -> list[Fact]:
        """Return the acknowledged events, the events that the projection contains, and all effects."""
        sent = {fact.id: fact for fact in self.facts if fact.kind == "sent"}
        facts = list(self.facts)

        def add(kind: Any, event_id: str) -> None:
            if known := sent.get(event_id):
                facts.append(Fact(kind, known.id, known.key, known.number))

        async with self.toy.engine.connect() as connection:
            rows = await connection.stream(text("SELECT state -> 'order' FROM tally ORDER BY key"))
            async for (order,) in rows:
                for event_id in order or ():
                    add("applied", event_id)
            async for (event_id,) in await connection.stream(text("SELECT id FROM ledger")):
                add("effect", event_id)
        return facts

    async def verdict(self, *, replayed: bool = True) -> Verdict:
        """Settle, then check the history, the answers in the log, and, if `replayed`, the projection against a replay. The
        replay starts at the beginning of the log, so removed records must never have been read.
        """
        await self.settled()
        found = check(await self.history())
        found.doubled += await self._answered_wrongly()
        if replayed:
            found.differences = await self._differences()
        return found

    async def _differences(self) -> int:
        """Verify the projection, again if a busy machine opens no session within the time that an operator would wait."""
        for _ in range(_VERIFIES - 1):
            with contextlib.suppress(TimeoutError):
                return (await verify(self.toy.runtime().projection, accept_incomplete=True)).differences
        return (await verify(self.toy.runtime().projection, accept_incomplete=True)).differences

    async def _answered_wrongly(self) -> list[str]:
        """Return the jobs whose answer is not in the log exactly once, not counting copies that the relay sent again."""
        answers: dict[str, set[str]] = {}
        spans = await log.bounds(self.stack.cluster, [JOBS.name])
        async with log.read(self.stack.cluster, spans) as chunks:
            async for chunk in chunks:
                for record in chunk:
                    if (event := event_of(record)) and event.source == self.toy.domain.source:
                        answers.setdefault(event.correlation_id, set()).add(event.id)
        async with self.toy.engine.connect() as connection:
            asked = await connection.scalars(
                text("SELECT key FROM tally WHERE CAST(state ->> 'requests' AS int) > 0 ORDER BY key")
            )
            return [key for key in asked if len(answers.get(key, ())) != 1]


@asynccontextmanager
async def field_on(stack: DevStack, home: Path) -> AsyncIterator[Field]:
    """Create a toy service on these servers."""
    toy = Toy(stack.kafka_bootstrap, stack.database_url, home)
    await toy.create()
    made = Field(stack, toy)
    try:
        yield made
    finally:
        await made.end()
