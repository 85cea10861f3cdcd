"""A replay in its thread: one at a time, cancelled at any moment, its failure told to whoever started it."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from services.chassis.replay import background
from services.chassis.replay.background import Replays
from services.chassis.replay.runs import Busy
from tests.toy import until


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Replays:
    monkeypatch.setattr(background, "_BEGUN_SECONDS", 0.05)
    return Replays(cast(Any, SimpleNamespace(service="toy")))


class Long:
    """A replay that goes on until it is cancelled."""

    def __init__(self) -> None:
        self.began, self.cancelled = threading.Event(), threading.Event()

    async def __call__(self, _projection: object) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def ended(replays: Replays) -> None:
    await until(lambda: replays._current is None or replays._current.ended)


async def test_a_replay_that_has_begun_can_be_cancelled_once_and_then_another_can_start(replays: Replays) -> None:
    first, second = Long(), Long()
    await replays.start(first)
    assert first.began.is_set()
    assert replays.cancel()
    await ended(replays)
    assert first.cancelled.is_set()
    assert not replays.cancel()
    await replays.start(second)
    assert replays.cancel()
    await ended(replays)


async def test_a_second_start_is_refused_and_the_first_can_still_be_cancelled(replays: Replays) -> None:
    first, second = Long(), Long()
    await replays.start(first)
    with pytest.raises(Busy, match="is running in this process"):
        await replays.start(second)
    assert not second.began.is_set()
    assert replays.cancel()
    await ended(replays)
    assert first.cancelled.is_set()


async def test_a_cancel_before_it_has_begun_ends_it_and_whoever_started_it_is_told(
    replays: Replays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "_BEGUN_SECONDS", 60.0)
    starting = asyncio.create_task(replays.start(Long()))
    await until(lambda: replays._current is not None)
    assert replays.cancel()
    with pytest.raises(Busy, match="cancelled before it began"):
        await asyncio.wait_for(starting, 30)
    await ended(replays)
    assert not replays.cancel()


async def test_a_cancel_before_its_thread_has_a_loop_ends_it_too(replays: Replays) -> None:
    running = background._Running(Long(), replays.projection)
    running.cancel()
    with pytest.raises(Busy, match="cancelled"):
        await asyncio.wait_for(running.begin(), 30)
    await until(lambda: running.ended)


async def test_what_a_replay_fails_with_at_once_is_told_to_whoever_started_it(replays: Replays) -> None:
    async def fails(_projection: object) -> None:
        raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        await replays.start(fails)
    await ended(replays)
    await replays.start(Long())
    assert replays.cancel()
    await ended(replays)


async def test_a_replay_that_ends_at_once_has_begun(replays: Replays) -> None:
    async def short(_projection: object) -> None:
        await asyncio.sleep(0)

    await replays.start(short)
    await ended(replays)
    assert not replays.cancel()


async def test_a_failure_later_on_leaves_the_way_free_for_the_next(replays: Replays) -> None:
    gone = threading.Event()

    async def fails_later(_projection: object) -> None:
        while not gone.is_set():
            await asyncio.sleep(0.01)
        raise ValueError("later")

    await replays.start(fails_later)
    gone.set()
    await ended(replays)
    await replays.start(Long())
    assert replays.cancel()
    await ended(replays)


async def test_whoever_no_longer_waits_leaves_it_running(replays: Replays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "_BEGUN_SECONDS", 0.3)
    long = Long()
    starting = asyncio.create_task(replays.start(long))
    await until(long.began.is_set)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await asyncio.sleep(0.5)
    assert not long.cancelled.is_set()
    assert replays.cancel()
    await ended(replays)
    assert long.cancelled.is_set()


async def test_the_end_of_the_service_ends_it(replays: Replays) -> None:
    long, stop = Long(), asyncio.Event()
    await replays.start(long)
    running = asyncio.create_task(replays.run(stop))
    stop.set()
    await asyncio.wait_for(running, 30)
    assert long.cancelled.is_set()
