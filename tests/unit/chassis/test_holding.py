"""Own events that come back wait for each other, a moment and no longer; whatever comes, order is kept and nothing is forgotten."""

from collections.abc import Iterable
from typing import Any

from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.kernel.consuming.holding import HELD_BYTES, HOLD_SECONDS, Holding
from tests.log import HeldRecord

ONE, OTHER = TopicPartition("neuroweaver.jobs", 0), TopicPartition("neuroweaver.jobs", 1)
OWN = (("ce_source", b"neuroweaver/toy"), ("ce_sequence", b"0000000000000001"))
FOREIGN = (("ce_source", b"neuroweaver/trainer"), ("ce_sequence", b"0000000000000001"))
FACT = (("ce_source", b"neuroweaver/toy"),)
"""Without a number: news also to the service whose name it carries."""
MOST = 8


def record(partition: TopicPartition, offset: int, headers: Any = OWN, value: bytes = b"{}") -> Any:
    return HeldRecord(partition.topic, partition.partition, offset, 0, b"key", value, headers)


def records(partition: TopicPartition, offsets: Iterable[int], headers: Any = OWN) -> list[Any]:
    return [record(partition, offset, headers) for offset in offsets]


class Player:
    """One client's holding, with what it took."""

    def __init__(self) -> None:
        self.holding = Holding("neuroweaver/toy")
        self.end: int | None = None

    def take(self, *taken: Any, at: float = 0.0) -> dict[TopicPartition, list[int]]:
        """The offsets that are handed over when these are taken."""
        by_partition: dict[TopicPartition, list[Any]] = {}
        for one in taken:
            by_partition.setdefault(TopicPartition(one.topic, one.partition), []).append(one)
        handed = self.holding.hand_over(by_partition, lambda _: self.end, at, MOST)
        return {partition: [one.offset for one in group] for partition, group in handed.items()}


def test_own_events_wait_until_the_first_of_them_has_waited_long_enough() -> None:
    player = Player()
    assert player.take(*records(ONE, [0, 1])) == {}
    assert player.take(*records(OTHER, [5]), at=0.6 * HOLD_SECONDS) == {}
    assert player.holding.until is not None
    assert player.take(at=HOLD_SECONDS) == {ONE: [0, 1], OTHER: [5]}
    assert player.holding.count == 0
    assert player.holding.until is None


def test_what_others_say_is_handed_over_at_once_with_what_lies_before_it_and_nothing_else() -> None:
    player = Player()
    player.take(*records(ONE, [0, 1]), *records(OTHER, [5]))
    assert player.take(*records(ONE, [2]), *records(ONE, [3], FOREIGN)) == {ONE: [0, 1, 2, 3]}
    assert player.holding.first(OTHER) == 5


def test_a_fact_without_a_number_is_news() -> None:
    assert Player().take(*records(ONE, [0], FACT)) == {ONE: [0]}


def test_a_backlog_does_not_wait() -> None:
    player = Player()
    player.end = 1000
    assert player.take(*records(ONE, [0, 1])) == {ONE: [0, 1]}
    player.end = 3
    assert player.take(*records(ONE, [2])) == {}


def test_so_many_as_fill_a_batch_do_not_wait() -> None:
    player = Player()
    player.take(*records(OTHER, [5]))
    assert player.take(*records(ONE, range(MOST - 1))) == {OTHER: [5], ONE: list(range(MOST - 1))}


def test_large_ones_do_not_wait() -> None:
    assert Player().take(record(ONE, 0, value=b"x" * HELD_BYTES)) == {ONE: [0]}


def test_what_does_not_follow_at_once_is_judged_alone() -> None:
    """The client may have begun elsewhere by itself: where records were removed it goes on at the log's beginning."""
    player = Player()
    player.take(*records(ONE, [0, 1]))
    assert player.take(*records(ONE, [7, 8])) == {ONE: [0, 1]}
    assert player.take() == {ONE: [7, 8]}


def test_what_is_read_anew_is_forgotten() -> None:
    player = Player()
    player.take(*records(ONE, [0, 1]), *records(OTHER, [5]))
    player.holding.drop(ONE)
    assert player.take(at=HOLD_SECONDS) == {OTHER: [5]}


_POLLS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from([ONE, OTHER]), st.sampled_from([OWN, OWN, FOREIGN]), st.sampled_from([1, 1, 2])), max_size=3),
        st.sampled_from([0.0, 0.3 * HOLD_SECONDS, HOLD_SECONDS]),
        st.sampled_from([None, 0, 1000]),
    ),
    max_size=20,
)  # fmt: skip


@given(_POLLS)
def test_whatever_comes_order_is_kept_nothing_is_lost_and_nothing_waits_too_long(polls: Any) -> None:
    player, now = Player(), 0.0
    taken: dict[TopicPartition, list[int]] = {ONE: [], OTHER: []}
    handed: dict[TopicPartition, list[int]] = {ONE: [], OTHER: []}
    came: dict[tuple[TopicPartition, int], float] = {}
    gaps: set[tuple[TopicPartition, int]] = set()
    for group, passes, player.end in polls:
        now += passes
        new: list[Any] = []
        for partition, headers, step in group[: MOST - player.holding.count]:
            offset = taken[partition][-1] + step if taken[partition] else 0
            if step > 1 and not any(one.partition == partition.partition for one in new):
                gaps.add((partition, offset))
            taken[partition].append(offset)
            came[partition, offset] = now
            new.append(record(partition, offset, headers))
        found = player.take(*new, at=now)
        for partition, offsets in found.items():
            handed[partition] += offsets
            assert not any((partition, offset) in gaps for offset in offsets[1:])
        waiting = {key for key in came if key[1] not in handed[key[0]]}
        assert all(now - came[key] < 1.001 * HOLD_SECONDS or key[0] in found for key in waiting)
        assert len(waiting) == player.holding.count <= MOST
    for partition, offsets in handed.items():
        assert offsets == taken[partition][: len(offsets)]
