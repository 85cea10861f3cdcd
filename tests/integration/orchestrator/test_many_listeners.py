"""Hundreds of listeners on plain sockets: every one of them hears the end, and the database is asked once for all of them."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from schemas.progress import StepProgressed
from services.chassis.serving.reads import Rows
from services.orchestrator import job_events, polling, statements
from services.orchestrator.effects import CHANNEL
from tests.orchestrator import Orchestrator
from tests.toy import until

MANY = 300


@dataclass
class Heard:
    """What one listener was told, by the names of events, and the socket on which it hears."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    told: Counter[str] = field(default_factory=Counter)

    async def to_the_end(self) -> None:
        """Until the stream ends or is broken."""
        try:
            async for line in self.reader:
                if line.startswith(b"event: "):
                    self.told[line[7:].strip().decode()] += 1
                if line == b"0\r\n":
                    break
        except ConnectionResetError:
            pass
        self.writer.close()


async def listen(orchestrator: Orchestrator, job_id: str) -> Heard:
    url = orchestrator.http.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port, limit=2**20)
    writer.write(f"GET /api/v1/training/{job_id}/events HTTP/1.1\r\nHost: {url.host}\r\n\r\n".encode())
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    assert head.startswith(b"HTTP/1.1 200")
    return Heard(reader, writer)


@pytest.fixture
def asked(orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs each look asked for."""
    found: list[int] = []
    assert orchestrator.runtime
    rows = orchestrator.runtime.reads.rows

    async def noted(statement: str, *arguments: Any) -> Rows:
        if statement == statements.CHANGED:
            found.append(len(arguments[0]))
        return await rows(statement, *arguments)

    monkeypatch.setattr(orchestrator.runtime.reads, "rows", noted)
    return found


def names(prefix: str = "") -> int:
    return sum(task.get_name().startswith(prefix) for task in asyncio.all_tasks())


async def started(orchestrator: Orchestrator, name: str) -> str:
    await orchestrator.ask(orchestrator.request(name))
    await orchestrator.status(name, "running")
    job_id = orchestrator.prefix + name
    await until(lambda: orchestrator.asked(job_id, "prepare"))
    return job_id


async def told(orchestrator: Orchestrator, job_id: str, done: int) -> None:
    """Progress that came as far as the database."""
    await orchestrator.say(StepProgressed, job_id, "prepare", done=done, of=9, unit="rows")

    async def shown() -> bool:
        steps = (await orchestrator.http.get(f"/training/{job_id}/progress")).json()["steps"]
        return bool(steps[0]["done"] == done)

    await until(shown)


async def test_hundreds_who_listen_to_a_job_cost_one_statement_a_change_and_all_of_them_hear_its_end(
    orchestrator: Orchestrator, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_events, "POLL_SECONDS", 600.0)
    watched, other = await started(orchestrator, "crowded"), await started(orchestrator, "lonely")
    tasks = len(asyncio.all_tasks())
    listeners = [await listen(orchestrator, watched) for _ in range(MANY)]
    assert sum(asked) <= 2  # the second, where LISTEN began behind the first listener
    hearing = [asyncio.create_task(listener.to_the_end(), name="hearing") for listener in listeners]
    await until(lambda: all(listener.told["job"] for listener in listeners))
    asked.clear()
    await told(orchestrator, other, 1)
    assert asked == []
    for done in (1, 2, 3):
        await told(orchestrator, watched, done)
        await until(lambda done=done: all(listener.told["progress"] == done for listener in listeners))
        assert asked == [1] * done
    assert names("job-events") == 1
    await orchestrator.complete(watched, "prepare", "train", "register")
    await asyncio.wait_for(asyncio.gather(*hearing), 120)
    assert {listener.told["end"] for listener in listeners} == {1}
    assert orchestrator.runtime
    subscribed = orchestrator.runtime.notifications._subscriptions[CHANNEL]
    await until(lambda: not names("job-events") and not subscribed)
    await until(lambda: len(asyncio.all_tasks()) <= tasks, what=lambda: [task.get_name() for task in asyncio.all_tasks()])


async def test_listeners_that_come_and_go_leave_no_task_no_subscription_and_no_session_at_work(
    orchestrator: Orchestrator,
) -> None:
    jobs = [await started(orchestrator, f"visited-{number}") for number in range(4)]
    assert orchestrator.runtime
    subscribed, places = (
        orchestrator.runtime.notifications._subscriptions.get(CHANNEL, set()),
        orchestrator.runtime.reads._places,
    )
    free = places._value
    tasks = len(asyncio.all_tasks())
    for _ in range(5):
        listeners = [await listen(orchestrator, job_id) for job_id in jobs * 10]
        for number, listener in enumerate(listeners):
            if number % 2:
                listener.writer.transport.abort()
            else:
                listener.writer.close()
    await until(lambda: not names("job-events") and not subscribed)
    await until(lambda: len(asyncio.all_tasks()) <= tasks, what=lambda: [task.get_name() for task in asyncio.all_tasks()])
    await until(lambda: places._value == free)


async def test_more_jobs_than_one_statement_gives_are_all_told_and_a_lost_signal_costs_a_while(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "POLL_ROWS", 2)
    monkeypatch.setattr(job_events, "POLL_SECONDS", 0.2)
    jobs = [await started(orchestrator, f"paged-{number}") for number in range(5)]
    listeners = [await listen(orchestrator, job_id) for job_id in jobs]
    hearing = [asyncio.create_task(listener.to_the_end()) for listener in listeners]
    await until(lambda: all(listener.told["job"] for listener in listeners))
    assert orchestrator.runtime
    monkeypatch.setattr(orchestrator.runtime.notifications, "_subscriptions", {})
    for job_id in jobs:
        await orchestrator.say(StepProgressed, job_id, "prepare", done=1, of=9, unit="rows")
    await until(lambda: all(listener.told["progress"] for listener in listeners))
    assert {listener.told["job"] for listener in listeners} == {1}
    monkeypatch.undo()
    for listener in listeners:
        listener.writer.transport.abort()
    await asyncio.gather(*hearing)
