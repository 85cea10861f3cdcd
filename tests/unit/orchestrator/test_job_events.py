"""Who listens to jobs is told what changed, once looked for and once written, whatever the database and the other listeners do."""

import asyncio
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast

import pytest

from schemas.progress import StepProgressed
from services.chassis.postgres.notifications import Notifications
from services.orchestrator import job_events
from services.orchestrator.domain.state import JobState
from services.orchestrator.effects import CHANNEL
from services.orchestrator.job_events import JobEvents, Listener
from services.orchestrator.job_stream import JobStream, next_stream, since
from services.orchestrator.polling import JobChange, JobPoller, RowVersions
from services.orchestrator.queries import JobRow, ProgressRow
from services.orchestrator.rendering import job_progress, job_view
from tests.toy import until
from tests.unit.orchestrator.scenario import START, JobScenario


def _requested() -> JobState:
    progress = JobScenario()
    progress.requested()
    return progress.state


STATE = _requested()


class Jobs:
    """Rows that a test writes; stands where JobPoller stands."""

    def __init__(self, *job_ids: str) -> None:
        self.ids = frozenset(job_ids)
        self.progress: dict[str, list[tuple[datetime, str]]] = {}
        self.versions: Counter[str] = Counter()
        self.asked: list[list[str]] = []
        """Which jobs each look was about."""
        self.away: Exception | None = None
        self.hang: asyncio.Event | None = None
        self.broken: set[str] = set()

    def tell(self, job_id: str, done: int) -> None:
        data = StepProgressed(job_id=job_id, step="prepare", attempt=1, kind="prepare", done=done, of=9)
        self.progress[job_id] = [(START + timedelta(seconds=done), data.model_dump_json())]
        self.versions[job_id] += 1

    async def changed(self, seen: Mapping[str, RowVersions]) -> AsyncIterator[JobChange]:
        self.asked.append(list(seen))
        if self.hang:
            await self.hang.wait()
        if self.away:
            raise self.away
        for job_id, versions in seen.items():
            now = RowVersions("1", str(self.versions[job_id]))
            if job_id in self.ids and now != versions:
                state = "{" if job_id in self.broken else STATE.model_dump_json()
                progress = tuple(self.progress.get(job_id, ()))
                yield JobChange(job_id, now, None if versions.job else state, 1, START, progress)


MADE: list[JobEvents] = []


def job_events_of(jobs: Jobs) -> tuple[JobEvents, Notifications]:
    signals = Notifications("postgresql://nobody@127.0.0.1:1/nothing")
    MADE.append(JobEvents(signals, cast(JobPoller, jobs)))
    return MADE[-1], signals


async def listen(job_events: JobEvents, job_id: str, seen: str | None = None) -> Listener:
    listener = await job_events.listen(job_id, seen)
    assert listener is not None
    return listener


async def hears(listener: Listener) -> bytes:
    """The next thing that is told."""
    while not (said := listener.take()):
        assert said is not None
        listener.woken.clear()
        await asyncio.wait_for(listener.woken.wait(), 60)
    return said


def signal(signals: Notifications, *job_ids: str) -> None:
    for job_id in job_ids:
        signals._received(None, 0, CHANNEL, job_id)


@pytest.fixture(autouse=True)
async def _signals_alone(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Nobody looks without a signal, and in the end nobody listens."""
    monkeypatch.setattr(job_events, "POLL_SECONDS", 600.0)
    MADE.clear()
    yield
    for events in MADE:
        for watched in list(events._watched.values()):
            for listener in list(watched.listeners):
                listener.leave()
        await until(lambda events=events: not events._watched and events._task is None)


async def test_a_thousand_who_listen_to_one_job_cost_one_look_at_each_change() -> None:
    jobs = Jobs("job", "other")
    job_events, signals = job_events_of(jobs)
    listeners = await asyncio.gather(*(listen(job_events, "job") for _ in range(1000)))
    assert len(jobs.asked) <= 2
    first = {await hears(listener) for listener in listeners}
    assert len(first) == 1
    for done in (1, 2, 3):
        jobs.asked.clear()
        jobs.tell("job", done)
        signal(signals, "job", "other", "job")
        assert {await hears(listener) for listener in listeners} == {await _progress(jobs, "job")}
        assert jobs.asked == [["job"]]
    for listener in listeners:
        listener.leave()
    await until(lambda: not job_events._watched and job_events._task is None)
    assert not signals._subscriptions[CHANNEL]


async def _progress(jobs: Jobs, job_id: str) -> bytes:
    (at, data) = jobs.progress[job_id][0]
    row = JobRow(job_id, STATE, 1, START)
    progress = job_progress(row, [ProgressRow(at, StepProgressed.model_validate_json(data))])
    stream = next_stream(None, job_view(row), progress)
    return stream.steps["prepare"].frame


async def test_a_thousand_jobs_are_looked_at_together_and_signals_of_others_cost_nothing() -> None:
    ids = [f"job-{number}" for number in range(1000)]
    jobs = Jobs(*ids)
    job_events, signals = job_events_of(jobs)
    listeners = await asyncio.gather(*(listen(job_events, job_id) for job_id in ids))
    assert len(jobs.asked) <= 2
    assert all([b"event: job" in await hears(listener) for listener in listeners])
    jobs.asked.clear()
    signal(signals, *(f"unknown-{number}" for number in range(20_000)))
    jobs.tell("job-7", 1)
    signal(signals, "job-7")
    assert b'"done":1' in await hears(listeners[7])
    assert jobs.asked == [["job-7"]]
    assert [listener.take() for listener in listeners] == [b""] * 1000


async def test_a_job_that_nobody_requested_is_nobody_to_listen_to() -> None:
    jobs = Jobs("job")
    job_events, _ = job_events_of(jobs)
    assert await asyncio.gather(*(job_events.listen("nobody", None) for _ in range(20))) == [None] * 20
    assert not job_events._watched
    await until(lambda: job_events._task is None)


async def test_while_the_database_is_away_who_listens_waits_and_who_comes_is_told() -> None:
    jobs = Jobs("job", "new")
    job_events, signals = job_events_of(jobs)
    listener = await listen(job_events, "job")
    await hears(listener)
    jobs.away = OSError("the database is away")
    with pytest.raises(OSError, match="away"):
        await job_events.listen("new", None)
    jobs.tell("job", 1)
    signal(signals, "job")
    await until(lambda: jobs.asked[-1] == ["job"])
    assert listener.take() == b""
    assert b"event: job" in await hears(await listen(job_events, "job"))
    jobs.away = None
    signal(signals, "")  # as when the connection that listens is there again
    assert b'"done":1' in await hears(listener)
    assert b"event: job" in await hears(await listen(job_events, "new"))


async def test_a_database_that_hangs_is_asked_by_nobody_else_meanwhile() -> None:
    jobs = Jobs("job", *(f"job-{number}" for number in range(100)))
    job_events, signals = job_events_of(jobs)
    listener = await listen(job_events, "job")
    await hears(listener)
    jobs.hang = asyncio.Event()
    signal(signals, "job")
    await until(lambda: len(jobs.asked) == 2)
    waiting = [asyncio.create_task(listen(job_events, f"job-{number}")) for number in range(100)]
    for _ in range(20):
        signal(signals, "job")
        await asyncio.sleep(0.01)
    assert len(jobs.asked) == 2
    leaves = waiting.pop()
    leaves.cancel()
    jobs.hang.set()
    assert all([b"event: job" in await hears(await one) for one in waiting])
    assert leaves.cancelled()
    assert "job-99" not in job_events._watched


async def test_who_comes_back_while_a_look_is_under_way_is_not_told_that_there_is_no_such_job() -> None:
    jobs = Jobs("job")
    job_events, signals = job_events_of(jobs)
    listener = await listen(job_events, "job")
    first = await hears(listener)
    for done in (0, 1):  # the look finds nothing new, or progress alone
        jobs.hang = asyncio.Event()
        jobs.asked.clear()
        if done:
            jobs.tell("job", done)
        signal(signals, "job")
        await until(lambda: len(jobs.asked) == 1)
        listener.leave()
        coming = asyncio.create_task(listen(job_events, "job"))
        await asyncio.sleep(0)
        jobs.hang.set()
        listener = await coming
        assert (await hears(listener)).startswith(first)


async def test_a_job_that_cannot_be_told_ends_its_own_listeners_only() -> None:
    jobs = Jobs("job", "broken")
    job_events, signals = job_events_of(jobs)
    listener = await listen(job_events, "job")
    await hears(listener)
    jobs.broken.add("broken")
    with pytest.raises(ValueError, match="JSON"):
        await job_events.listen("broken", None)
    coming = [job_events.listen("broken", None) for _ in range(50)]
    faults = await asyncio.gather(*coming, return_exceptions=True)
    assert max(len(traceback.format_exception(fault)) for fault in faults if isinstance(fault, Exception)) < 20
    jobs.tell("job", 1)
    signal(signals, "job")
    assert b'"done":1' in await hears(listener)


async def test_a_listener_that_is_slow_is_told_the_latest_of_each_thing() -> None:
    jobs = Jobs("job")
    job_events, signals = job_events_of(jobs)
    slow, quick = await listen(job_events, "job"), await listen(job_events, "job")
    await hears(slow)
    await hears(quick)
    for done in range(1, 6):
        jobs.tell("job", done)
        signal(signals, "job")
        assert f'"done":{done}'.encode() in await hears(quick)
    assert (await hears(slow)).count(b"event: progress") == 1
    assert slow.take() == b""


async def test_who_comes_back_is_told_the_job_only_where_it_is_another() -> None:
    jobs = Jobs("job")
    job_events, _ = job_events_of(jobs)
    first = await hears(await listen(job_events, "job"))
    version = first.rpartition(b"id: ")[2].strip().decode()
    again = await listen(job_events, "job", version)
    assert again.take() == b""
    assert await hears(await listen(job_events, "job", "another")) == first


def test_a_history_that_ended_says_so_once_and_to_everybody() -> None:
    row = JobRow("job", STATE, 1, START)
    view = job_view(row)
    running = next_stream(None, view, job_progress(row, []))
    ended: JobStream = next_stream(running, view.model_copy(update={"status": "failed"}), job_progress(row, []))
    assert running.end == b""
    assert since(ended, running.revision).endswith(b'event: end\ndata: {"status": "failed"}\n\n')
    assert since(ended, 0, ended.job.version) == ended.end  # type: ignore[arg-type]
    assert since(ended, ended.revision) == b""
    assert since(replace(ended, revision=ended.revision + 1), ended.revision) == ended.end
