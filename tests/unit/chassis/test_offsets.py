"""Offsets are committed when they have changed, never twice at once, and a failure is said once."""

import asyncio
import logging
from typing import Any

import pytest
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError

from services.chassis.kernel.consuming.offsets import Offsets
from services.chassis.process.logging import configure

A, B = ("requests", 0), ("requests", 1)


class Group:
    """Takes commits as aiokafka's consumer does."""

    def __init__(self) -> None:
        self.commits: list[dict[TopicPartition, int]] = []
        self.failure: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.commits.append(offsets)
        await self.answers.wait()
        if self.failure:
            raise self.failure


async def commit(offsets: Offsets, group: Any, **at: int) -> None:
    await offsets.commit(group, {("requests", int(name.removeprefix("p"))): offset for name, offset in at.items()})


async def test_what_has_not_changed_is_not_committed_again() -> None:
    offsets, group = Offsets(), Group()
    for _ in range(3):
        await commit(offsets, group, p0=5, p1=7)
    await commit(offsets, group, p0=5, p1=8)
    assert group.commits == [{TopicPartition(*A): 5, TopicPartition(*B): 7}, {TopicPartition(*B): 8}]


async def test_after_another_assignment_everything_is_committed_again() -> None:
    offsets, group = Offsets(), Group()
    await commit(offsets, group, p0=5)
    offsets.forget()
    await commit(offsets, group, p0=5)
    assert len(group.commits) == 2


async def test_a_commit_that_fails_is_said_once_and_tried_again() -> None:
    offsets, group = Offsets(), Group()
    group.failure = CommitFailedError()
    with structlog.testing.capture_logs() as logs:
        await commit(offsets, group, p0=5)
        await commit(offsets, group, p0=5)
        group.failure = None
        await commit(offsets, group, p0=5)
        await commit(offsets, group, p0=5)
    assert [entry["event"] for entry in logs] == ["offsets could not be committed; the database has the positions"]
    assert len(group.commits) == 3


async def test_a_commit_under_way_is_given_up_when_the_group_takes_the_partitions() -> None:
    offsets, group = Offsets(), Group()
    group.answers.clear()
    committing = asyncio.ensure_future(commit(offsets, group, p0=5))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    offsets.forget()
    await asyncio.wait_for(committing, 5)
    group.answers.set()
    await commit(offsets, group, p0=5)
    assert len(group.commits) == 2


def test_what_aiokafka_says_of_each_partition_of_a_failed_commit_is_left_to_the_consumer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        configure("WARNING")
        coordinator = logging.getLogger("aiokafka.consumer.group_coordinator")
        coordinator.error("OffsetCommit failed for group %s due to group error (%s), will rejoin", "g", "x")
        coordinator.error("Heartbeat failed")
        assert [line.count("OffsetCommit") for line in capsys.readouterr().err.splitlines()] == [0]
    finally:
        root.handlers[:], root.level = handlers, level
