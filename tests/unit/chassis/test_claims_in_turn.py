"""Claims of a machine take turns under one lock: the wait costs no lease time, and who claims nothing does not take part."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.chassis.executor import dispatcher
from services.chassis.executor.account import Account
from services.chassis.executor.folders import account_of
from services.chassis.executor.needs import Need
from services.chassis.executor.slots import Allocation, Counted, Machine, Slots, machine_name
from services.chassis.executor.work import Lease
from services.chassis.process.health import Health

SECONDS = 6.0


class Room:
    """Disk space that suffices."""

    refused: tuple[str, ...] = ()
    short = False

    async def look(self) -> Sequence[str]:
        return ()


class Worker:
    """Stores until when each attempt was leased."""

    def __init__(self) -> None:
        self.until: list[float] = []

    async def work(self, lease: Lease, until: float, place: Allocation, stop: asyncio.Event) -> None:
        self.until.append(until)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which one attempt is due."""

    async def due(*_: Any) -> Need:
        return Need(1, 100, 0)

    async def claim(*_: Any, **__: Any) -> Lease:
        return Lease("key", "token", Need(1, 100, 0))

    monkeypatch.setattr(dispatcher, "first_waiting", due)
    monkeypatch.setattr(dispatcher, "claim", claim)
    return tmp_path


def dispatching(home: Path, worker: Worker) -> dispatcher.Dispatcher:
    settings = SimpleNamespace(home=home, lease_seconds=SECONDS, workers=5)
    host: Any = SimpleNamespace(settings=settings, service="trainer", engine=None, health=Health("trainer", ()))
    room: Any = Room()
    doing: Any = worker
    return dispatcher.Dispatcher(host, doing, room, Slots(Machine(2, 1000, 1, 100), lambda: ()))


async def test_a_lease_is_counted_from_its_claim_and_not_from_the_wait_for_the_account(home: Path) -> None:
    worker, feedback = Worker(), Account(account_of(home, machine_name()), "feedback")
    async with feedback.alone():
        looking = asyncio.create_task(dispatching(home, worker)._look(asyncio.Event()))
        await asyncio.sleep(0.1)
        claims = asyncio.get_running_loop().time()
    assert await looking
    assert worker.until[0] >= claims + SECONDS


async def test_a_process_without_work_does_not_wait_for_the_account(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any) -> None:
        return None

    monkeypatch.setattr(dispatcher, "first_waiting", nothing)
    async with Account(account_of(home, machine_name()), "feedback").alone():
        assert not await dispatching(home, Worker())._look(asyncio.Event())


async def test_the_account_does_not_wait_behind_other_blocking_work_of_its_process(tmp_path: Path) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    done = threading.Event()
    digest = asyncio.create_task(asyncio.to_thread(done.wait))
    await asyncio.sleep(0)
    mine = Account(tmp_path, "trainer")
    try:
        async with mine.alone():
            assert await mine.aside(lambda: mine.take(Counted(1, 1, 0, ()))) > 0
            assert list(await mine.aside(mine.others)) == []
    finally:
        done.set()
        await digest
