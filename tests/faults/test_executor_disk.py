"""The executor's disk is full: it says so, burns no attempt, leaves nothing half written, and goes on when there is room."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from services.chassis.executor import disk_space, metrics
from services.chassis.executor.attempts import attempt_ref
from services.chassis.executor.folders import checkpoints_of
from services.chassis.executor.supervise import SubprocessRunner
from tests.executor import Executor
from tests.faults.small_disk import fill, remount, small_disk, why_not
from tests.steps import cancel, request
from tests.toy import until

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

REF = attempt_ref("a", "bulky", 1)
LOOKS = 5
"""So many polls of a worker see whether it keeps away."""


@pytest.fixture(scope="module")
async def name(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An executor whose database has all tables."""
    executor = Executor(database_url, tmp_path_factory.mktemp("disk"))
    await executor.create()
    await executor.runtime.engine.dispose()
    return executor.name


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "8m") as folder:
        yield folder


@pytest.fixture
async def executor(database_url: str, name: str, disk: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Executor]:
    monkeypatch.setattr(disk_space, "_LOOK_SECONDS", 0.2)
    executor = Executor(database_url, disk / "home", name=name, disk_reserve_mb=1)
    await executor.empty()
    yield executor
    await executor.runtime.engine.dispose()


def not_ready(executor: Executor) -> str:
    """Why the executor has no room; empty where it has."""
    return str(executor.runtime.health.missing.get(disk_space.CONDITION, ""))


def is_(executor: Executor, status: str) -> Any:
    async def check() -> bool:
        return await executor.status(REF) == status

    return check


async def looks(executor: Executor) -> None:
    """Wait until the workers have looked for work some times."""
    seen = 0
    real = disk_space.DiskSpace.look

    async def counted(self: disk_space.DiskSpace) -> tuple[str, ...]:
        nonlocal seen
        seen += 1
        return await real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk_space.DiskSpace, "look", counted)
        await until(lambda: seen > LOOKS)


async def test_a_step_that_fills_the_disk_is_given_back_and_goes_on_where_it_was_when_there_is_room(
    executor: Executor, disk: Path
) -> None:
    filler = disk / "filler"
    fill(filler, leave=3_000_000)
    await executor.deliver(request("a", step="bulky"))
    before = metrics.POSTPONED.labels(executor.name)._value.get()
    async with executor.working(SubprocessRunner("tests.child"), own=True):
        await until(lambda: "a/bulky/1 waits" in not_ready(executor))
        said = not_ready(executor)
        assert f"{disk}/home" in said
        assert "the disk is full" in said
        assert " free" in said
        await looks(executor)
        assert await executor.said(REF) == ["StepStarted"], "no attempt is burnt while there is no room"
        (row,) = await executor.work()
        assert row.lease is None
        root = checkpoints_of(executor.settings.home, "a", "bulky")
        made = len(list(root.rglob("part-*")))
        assert 0 < made < 10
        assert not list(root.rglob("tmp-*")), "what was half written is gone"
        assert not list((disk / "home" / "tmp").glob("*/*"))
        filler.unlink()
        await until(is_(executor, "completed"))
        await until(lambda: not not_ready(executor))
    result = (await executor.state(REF)).result
    assert result is not None
    assert result.metrics == {"first": made, "last": 10}
    assert result.facts["scratch"].startswith(f"{disk}/home/tmp/"), "scratch files lie where they are found again"
    assert await executor.said(REF) == ["StepStarted", "StepStarted", "StepCompleted"]
    assert metrics.POSTPONED.labels(executor.name)._value.get() == before + 1


async def test_nothing_is_begun_on_a_full_disk_and_a_cancel_needs_no_room(executor: Executor, disk: Path) -> None:
    filler = disk / "filler"
    fill(filler, leave=3_000_000)
    await executor.deliver(request("a", step="bulky"))
    async with executor.working(SubprocessRunner("tests.child"), own=True):
        await until(lambda: "a/bulky/1 waits" in not_ready(executor))
        fill(disk / "more")
        await until(lambda: "free, 1.0 MB (1000000 bytes) wanted" in not_ready(executor))
        await executor.deliver(request("b", step="complete"))
        await looks(executor)
        assert await executor.status(attempt_ref("b", "complete", 1)) == "queued"
        await executor.deliver(cancel(request("a", step="bulky")))
        await until(is_(executor, "cancelled"))
        (disk / "more").unlink()
        filler.unlink()
        await until(lambda: _done(executor))
    assert await executor.status(attempt_ref("b", "complete", 1)) == "completed"


async def _done(executor: Executor) -> bool:
    return await executor.work() == []


async def test_a_child_that_dies_without_a_word_on_a_full_disk_has_not_failed(executor: Executor, disk: Path) -> None:
    await executor.deliver(request("a", step="choking"))
    ref = attempt_ref("a", "choking", 1)
    async with executor.working(SubprocessRunner("tests.child"), own=True):
        await until(lambda: "a/choking/1 waits" in not_ready(executor))
        assert await executor.said(ref) == ["StepStarted"]
        for path in checkpoints_of(executor.settings.home, "a", "choking").rglob("data"):
            path.unlink()
        (disk / "home" / "checkpoints" / "enough").touch()
        await until(lambda: _done(executor))
    assert await executor.status(ref) == "completed"


async def test_a_home_that_became_read_only_is_said_and_left_alone(executor: Executor, disk: Path) -> None:
    await asyncio.to_thread(remount, disk, "ro")
    await executor.deliver(request("a", step="bulky"))
    async with executor.working(SubprocessRunner("tests.child"), own=True):
        await until(lambda: "the file system is read-only" in not_ready(executor))
        await looks(executor)
        assert await executor.said(REF) == []
        await asyncio.to_thread(remount, disk, "rw")
        await until(is_(executor, "completed"))
        await until(lambda: not not_ready(executor))
