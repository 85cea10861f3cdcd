"""A partition that has records and does not move is reported, although nothing raises an error."""

from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition

from services.chassis import lag
from services.chassis.health import Health
from services.chassis.lag import STUCK_SECONDS, LagWatch
from services.chassis.metrics import REGISTRY

PARTITION = ("requests", 3)


class Clock:
    """Both clocks of the module, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class Broker:
    """Knows where each partition ends."""

    def __init__(self, end: int) -> None:
        self.end = end

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self.end)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lag, "time", clock)
    return clock


async def after(clock: Clock, watch: LagWatch, broker: Any, seconds: float, position: int, **more: Any) -> Health:
    """Look once now and once `seconds` later."""
    for _ in range(2):
        await watch.look(broker, {PARTITION: position}, more.get("waiting", {}), more.get("held", ()))
        clock.now += seconds
    return watch.health


def a_watch() -> LagWatch:
    return LagWatch("toy", Health("toy", ("moving",)))


async def test_a_partition_that_does_not_move_although_it_has_records_is_reported(clock: Clock) -> None:
    health = await after(clock, a_watch(), Broker(end=9), STUCK_SECONDS + 1, position=5)
    assert health.missing == {"moving": "requests:3 stands at offset 5, 4 before its end"}


async def test_a_partition_at_its_end_may_stand_as_long_as_it_likes(clock: Clock) -> None:
    assert (await after(clock, a_watch(), Broker(end=5), 10 * STUCK_SECONDS, position=5)).ready


async def test_a_partition_that_moves_is_not_stuck_however_far_behind_it_is(clock: Clock) -> None:
    watch, broker = a_watch(), Broker(end=1_000_000)
    for position in range(5):
        await after(clock, watch, broker, STUCK_SECONDS - 1, position)
        assert watch.health.ready


async def test_a_partition_that_is_held_for_a_failing_record_is_reported_elsewhere(clock: Clock) -> None:
    assert (await after(clock, a_watch(), Broker(end=9), STUCK_SECONDS + 1, position=5, held={PARTITION})).ready


async def test_lag_is_the_age_of_the_oldest_record_that_waits(clock: Clock) -> None:
    await after(clock, a_watch(), Broker(end=9), 7, position=5, waiting={PARTITION: clock.now - 100})
    labels = {"service": "toy", "topic": "requests", "partition": "3"}
    assert REGISTRY.get_sample_value("neuroweaver_lag_seconds", labels) == 107
