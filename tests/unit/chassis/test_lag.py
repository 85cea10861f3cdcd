"""A partition that has records and does not move is reported, although nothing raises an error; one at its end never is."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from hypothesis import given
from hypothesis import strategies as st

from schemas.topics import PROGRESS
from services.chassis.kernel.consuming import lag
from services.chassis.kernel.consuming.lag import LOSSY_SECONDS, STUCK_SECONDS, LagWatch, Reach, Seen, look_at
from services.chassis.process.health import Health
from services.chassis.process.metrics import REGISTRY

PARTITION = ("requests", 3)


class Clock:
    """Both clocks of the module, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class Client:
    """A consumer's client, which has come to `read` of a partition whose readable part ends at `stable`."""

    def __init__(self, read: int, stable: int, end: int | None = None) -> None:
        self.read, self.stable, self.end = read, stable, stable if end is None else end

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self.stable)

    async def position(self, _: TopicPartition) -> int:
        return self.read

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(*PARTITION), TopicPartition(PROGRESS.name, 0)}

    def highwater(self, _: TopicPartition) -> int:
        return self.end

    def last_stable_offset(self, _: TopicPartition) -> int:
        return self.stable


class Silent(Client):
    """One whose broker does not answer; what it fetched is still known, or nothing is."""

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        raise KafkaConnectionError

    def highwater(self, _: TopicPartition) -> int:
        return 0

    def last_stable_offset(self, _: TopicPartition) -> int:
        return 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lag, "time", clock)
    return clock


async def after(clock: Clock, watch: LagWatch, client: Any, seconds: float, position: int, **more: Any) -> Health:
    """Look once now and once `seconds` later."""
    for _ in range(2):
        partition = more.get("partition", PARTITION)
        await watch.look(client, {partition: position}, more.get("waiting", {}), more.get("held", ()))
        clock.now += seconds
    return watch.health


def a_watch() -> LagWatch:
    return LagWatch("toy", Health("toy", ("moving",)))


async def test_a_partition_that_does_not_move_although_it_has_records_is_reported(clock: Clock) -> None:
    health = await after(clock, a_watch(), Client(read=5, stable=9), STUCK_SECONDS + 1, position=5)
    assert health.missing == {"moving": "requests:3 makes no progress at offset 5, 4 before its end"}


async def test_a_partition_at_its_end_may_stand_as_long_as_it_likes(clock: Clock) -> None:
    assert (await after(clock, a_watch(), Client(read=5, stable=5), 10 * STUCK_SECONDS, position=5)).ready


async def test_a_marker_or_aborted_records_at_the_end_of_a_partition_are_nothing_to_read(clock: Clock) -> None:
    health = await after(clock, a_watch(), Client(read=9, stable=9), 10 * STUCK_SECONDS, position=5)
    assert health.ready
    labels = {"service": "toy", "topic": "requests", "partition": "3"}
    assert REGISTRY.get_sample_value("neuroweaver_lag_seconds", labels) == 0


async def test_records_that_the_client_handed_over_and_nobody_applies_are_reported(clock: Clock) -> None:
    client, waiting = Client(read=9, stable=9), {PARTITION: clock.now}
    health = await after(clock, a_watch(), client, STUCK_SECONDS + 1, position=5, waiting=waiting)
    assert health.missing == {"moving": "requests:3 makes no progress at offset 5, 4 before its end"}


async def test_another_programs_transaction_that_stays_open_is_reported_with_its_place(clock: Clock) -> None:
    health = await after(clock, a_watch(), Client(read=6, stable=6, end=9), STUCK_SECONDS + 1, position=5)
    assert (
        "requests:3 makes no progress at offset 5, 4 before its end: another program's transaction is open from offset 6"
        in (health.missing["moving"])
    )


async def test_a_partition_that_moves_is_not_stuck_however_far_behind_it_is(clock: Clock) -> None:
    watch = a_watch()
    for position in range(5):
        await after(clock, watch, Client(read=position, stable=1_000_000), STUCK_SECONDS - 1, position)
        assert watch.health.ready


async def test_a_record_that_comes_after_a_long_rest_is_given_its_time(clock: Clock) -> None:
    watch = a_watch()
    await after(clock, watch, Client(read=5, stable=5), 10 * STUCK_SECONDS, position=5)
    await watch.look(Client(read=5, stable=6), {PARTITION: 5}, {}, ())
    assert watch.health.ready


async def test_a_partition_that_is_held_for_a_failing_record_is_reported_elsewhere(clock: Clock) -> None:
    client = Client(read=5, stable=9)
    assert (await after(clock, a_watch(), client, STUCK_SECONDS + 1, position=5, held={PARTITION})).ready


async def test_progress_that_is_not_consumed_for_five_minutes_is_reported(clock: Clock) -> None:
    watch, client, place = a_watch(), Client(read=5, stable=9), (PROGRESS.name, 0)
    assert (await after(clock, watch, client, LOSSY_SECONDS - 1, position=5, partition=place)).ready
    assert not (await after(clock, watch, client, 3, position=5, partition=place)).ready


async def test_a_partition_that_is_no_longer_ours_neither_counts_nor_has_a_metric(clock: Clock) -> None:
    watch = a_watch()
    await after(clock, watch, Client(read=5, stable=9), STUCK_SECONDS + 1, position=5)
    await watch.look(Client(read=0, stable=0), {}, {}, ())
    assert watch.health.ready
    labels = {"service": "toy", "topic": "requests", "partition": "3"}
    assert REGISTRY.get_sample_value("neuroweaver_lag_seconds", labels) is None


async def test_lag_is_the_age_of_the_oldest_record_that_waits(clock: Clock) -> None:
    waiting = {PARTITION: clock.now - 100}
    await after(clock, a_watch(), Client(read=5, stable=9), 7, position=5, waiting=waiting)
    labels = {"service": "toy", "topic": "requests", "partition": "3"}
    assert REGISTRY.get_sample_value("neuroweaver_lag_seconds", labels) == 107


def test_what_is_read_again_and_again_is_no_progress() -> None:
    seen = None
    for now in range(10):
        seen = look_at(seen, Reach(5, 5 + now % 4, True, 9, 9), float(now))
    assert seen == Seen(5, 8, 3.0)


def test_another_log_that_begins_at_its_beginning_counts_from_there() -> None:
    assert look_at(Seen(500, 500, 1.0), Reach(3, 3, False, 9, 9), 50.0) == Seen(3, 3, 50.0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans(), st.integers(0, 9)), max_size=12))
def test_time_counts_only_while_there_is_something_to_read(looks: list[tuple[int, int, bool, int]]) -> None:
    seen = None
    for now, (position, read, waits, end) in enumerate(looks):
        reach = Reach(position, read, waits, end, end)
        seen = look_at(seen, reach, float(now))
        assert (seen.behind_since is not None) == reach.behind


async def test_while_the_broker_does_not_say_where_a_partition_ends_its_lag_is_not_known(clock: Clock) -> None:
    labels = {"service": "toy", "topic": "requests", "partition": "3"}
    watch, client = a_watch(), Silent(read=5, stable=5)
    await watch.look(client, {PARTITION: 5}, {}, ())
    assert watch.health.missing == {"moving": "the lag is unknown: the broker does not report the ends of the partitions"}
    assert math.isnan(REGISTRY.get_sample_value("neuroweaver_lag_seconds", labels) or 0)
    assert (await after(clock, watch, Client(read=5, stable=5), 1 + lag._LOOK_SECONDS, position=5)).ready
    assert REGISTRY.get_sample_value("neuroweaver_lag_seconds", labels) == 0


async def test_ends_that_the_broker_said_a_short_while_ago_are_known(clock: Clock) -> None:
    watch = a_watch()
    await watch.look(Client(read=5, stable=9), {PARTITION: 5}, {}, ())
    health = await after(clock, watch, Silent(read=5, stable=5), lag.KNOWN_SECONDS, position=5)
    assert health.ready
    labels = {"service": "toy", "topic": "requests", "partition": "3"}
    assert REGISTRY.get_sample_value("neuroweaver_lag_seconds", labels) == lag.KNOWN_SECONDS
    await watch.look(Silent(read=5, stable=5), {PARTITION: 5}, {}, ())
    assert "unknown" in health.missing["moving"]
