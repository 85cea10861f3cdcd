"""Whatever befalls polls, seeks and assignments: what is applied of a partition has no gap but the log's own."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import TopicPartition
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from services.chassis.kafka.metadata import FoundLog, FoundTopic
from services.chassis.kernel.consuming.cursor import PartitionCursor
from services.chassis.kernel.consuming.holding import HOLD_SECONDS, Holding, Taken
from services.chassis.kernel.consuming.identity.examine import PartitionStop, Span, stop_of
from services.chassis.kernel.consuming.seeking import removed
from tests.explored import examples
from tests.log import HeldRecord

PARTITION = ("neuroweaver.requests", 0)
PLACE = TopicPartition(*PARTITION)
OWN, FOREIGN = (("ce_source", b"toy"), ("ce_sequence", b"1")), (("ce_source", b"outside"),)
LOG = FoundLog("cluster", {PARTITION[0]: FoundTopic("topic", frozenset({0}), 1, 1)})
POISON = PartitionStop("record", 7, None, "poison")


def held(offsets: Iterable[int], own: set[int]) -> list[Any]:
    return [HeldRecord(*PARTITION, at, 0, b"k", b"v", OWN if at in own else FOREIGN) for at in offsets]


def reading(offset: int) -> PartitionCursor:
    """A cursor that was sought by the polling task and has accepted a poll."""
    return PartitionCursor(epoch=1).sought(offset, 2, by_poller=True).accept(0.0)


def test_a_partition_that_was_not_sought_accepts_nothing() -> None:
    assert PartitionCursor(epoch=1).step(0) == "doubt"


def test_a_poll_that_begins_at_the_next_offset_follows() -> None:
    assert reading(7).step(7) == "next"


def test_a_jump_right_after_a_seek_of_the_polling_task_may_be_the_logs_own() -> None:
    assert PartitionCursor(epoch=1).sought(7, 2, by_poller=True).step(9) == "jump"


def test_a_jump_after_a_seek_of_another_task_is_a_gap_since_a_poll_may_have_been_on_its_way() -> None:
    assert PartitionCursor(epoch=1).sought(7, 2, by_poller=False).step(9) == "doubt"


def test_the_licence_is_gone_as_soon_as_a_poll_is_accepted_whether_it_is_applied_or_not() -> None:
    assert reading(7).step(9) == "doubt"
    assert reading(7).applied(9).step(11) == "doubt"


def test_a_poll_that_begins_below_the_next_offset_is_doubted_too() -> None:
    assert reading(7).step(6) == "doubt"
    assert PartitionCursor(epoch=1).sought(7, 2, by_poller=True).step(6) == "doubt"


def test_a_stopped_partition_accepts_nothing_until_it_is_due_and_sought_anew() -> None:
    stopped = reading(7).stopped(POISON, 100.0, 3)
    assert stopped.step(7) == "doubt"
    assert stopped.due(99.0, 4) == stopped
    due = stopped.due(100.0, 4)
    assert (due.state, due.step(7)) == ("unsought", "doubt")
    assert due.sought(7, 5, by_poller=False).step(7) == "next"


def test_a_poll_that_was_not_all_applied_leaves_a_partition_that_must_be_sought() -> None:
    assert reading(7).ended(9, 3).state == "unsought"
    assert reading(7).applied(8).ended(9, 3).state == "unsought"
    assert reading(7).applied(9).ended(9, 3).state == "reading"
    assert PartitionCursor(epoch=1).sought(7, 2, by_poller=True).ended(9, 3).state == "unsought"
    assert reading(7).stopped(POISON, 9.0, 3).ended(9, 4).state == "stopped"


def test_the_licence_is_gone_as_soon_as_a_poll_is_judged_whether_that_succeeds_or_not() -> None:
    assert PartitionCursor(epoch=1).sought(7, 2, by_poller=True).judged().step(9) == "doubt"


def test_a_poll_that_the_client_lost_leaves_a_partition_that_must_be_sought_unless_it_stands() -> None:
    assert reading(7).lost(3).state == "unsought"
    assert PartitionCursor(epoch=1).sought(7, 2, by_poller=True).lost(3).state == "unsought"
    assert reading(7).stopped(POISON, 9.0, 3).lost(4).state == "stopped"


def test_trouble_is_counted_until_something_was_applied() -> None:
    again = reading(7).stopped(POISON, 1.0, 3).due(1.0, 4).sought(7, 5, by_poller=False).accept(0.0)
    assert (trouble := again.stopped(POISON, 9.0, 6).trouble) is not None
    assert trouble.stops == 2
    assert again.applied(8).trouble is None


def test_trouble_with_a_record_is_over_when_the_partition_goes_on_behind_it() -> None:
    due = reading(7).stopped(POISON, 1.0, 3).due(1.0, 4)
    assert due.sought(7, 5, by_poller=False).trouble is not None
    assert due.sought(8, 5, by_poller=False).trouble is None


def test_trouble_with_the_log_is_over_when_it_may_be_read_again() -> None:
    lost = PartitionStop("removed", 7, 9, "removed")
    assert reading(7).stopped(lost, 1.0, 3).due(1.0, 4).sought(7, 5, by_poller=False).trouble is None


def test_the_oldest_record_that_waits_is_known_until_it_is_applied() -> None:
    rewound = reading(7).accept(123.0).ended(9, 3).sought(7, 4, by_poller=True)
    assert (rewound.waiting_since, rewound.accept(123.0).applied(8).waiting_since) == (123.0, None)


class Partition(RuleBasedStateMachine):
    """A partition whose log has markers and aborted ranges, a client that fetches ahead and lets own events wait, a database, and two
    tasks that seek.

    The consumer's part is played as `Consumer` plays it: judge a poll, seek where it does not follow, apply in pieces.
    """

    judge: Callable[[PartitionCursor], PartitionCursor] = staticmethod(PartitionCursor.judged)
    accept: Callable[[PartitionCursor], PartitionCursor] = staticmethod(lambda cursor: cursor.accept(0.0))

    def __init__(self) -> None:
        super().__init__()
        self.readable: set[int] = set()
        self.own_events: set[int] = set()
        self.holding, self.now = Holding("toy"), 0.0
        self.begin = self.end = 0
        self.position = self.fetch_at = self.epoch = 0
        self.polls: list[list[int]] = []
        self.handled: list[int] = []
        """What is left to be applied of an accepted poll, and its epoch."""
        self.handled_epoch = 0
        self.unsaid = False
        """Whether the end of a poll was not noted."""
        self.assign()

    def assign(self) -> None:
        self.epoch += 1
        self.cursor = PartitionCursor(self.epoch)

    def still(self) -> bool:
        return self.cursor.epoch == self.handled_epoch

    def own(self, offset: int) -> bool:
        return not removed(PARTITION, offset, self.begin)

    # the log

    @rule(count=st.integers(1, 5), own=st.booleans())
    def records(self, count: int, own: bool = False) -> None:
        new = set(range(self.end, self.end + count))
        self.readable |= new
        self.own_events |= new if own else set()
        self.end += count

    @rule(count=st.integers(1, 4))
    def markers_or_aborted_records(self, count: int) -> None:
        self.end += count

    @precondition(lambda self: self.end > self.begin)
    @rule(data=st.data())
    def old_records_are_removed(self, data: st.DataObject) -> None:
        self.begin = data.draw(st.integers(self.begin, self.end))

    # the client

    @rule(most=st.integers(1, 4), waits=st.booleans())
    def poll(self, most: int, waits: bool = False) -> None:
        """The polling task takes records; those that do not wait are on their way until they are handled."""
        if self.polls or self.handled:
            return
        if self.fetch_at < self.begin:
            self.fetch_at = self.begin
        found = sorted(offset for offset in self.readable if offset >= self.fetch_at)[:most]
        if found:
            self.fetch_at = found[-1] + 1
        self.now += HOLD_SECONDS if waits else 0.0
        handed = self.holding.hand_over(
            {PLACE: held(found, self.own_events)} if found else {}, lambda _: self.end, self.now, 9
        )
        if PLACE in handed:
            self.polls.append([record.offset for record in handed[PLACE]])

    def drop(self) -> None:
        """The client forgets what waits, as it is read anew."""
        self.holding.drop(PLACE)

    @precondition(lambda self: not self.polls and not self.handled)
    @rule(most=st.integers(1, 4))
    def getmany_loses_a_poll(self, most: int) -> None:
        """It takes records and moves the client's position, and raises at another partition."""
        self.poll(most)
        self.polls = []
        self.holding.drop_all()
        self.epoch += 1
        self.cursor = self.cursor.lost(self.epoch)

    def seek_to(self, offset: int, by_poller: bool) -> None:
        self.epoch += 1
        self.fetch_at = offset
        self.drop()
        self.cursor = self.cursor.sought(offset, self.epoch, by_poller=by_poller)

    def seek(self, by_poller: bool) -> None:
        self.epoch += 1
        if stop_of("toy", PARTITION, self.position, None, LOG, Span(self.begin, self.end)):
            self.cursor = self.cursor.stopped(POISON, 0.0, self.epoch)
            self.drop()
        else:
            self.seek_to(self.position, by_poller)

    # the polling task

    @precondition(lambda self: self.polls and not self.handled)
    @rule(fails=st.booleans())
    def handle(self, fails: bool) -> None:
        """Where the judgement fails, broker or database do not answer: no jump is judged, and nothing is sought."""
        poll = self.polls.pop()
        step, epoch = self.cursor.step(poll[0]), self.cursor.epoch
        self.cursor = self.judge(self.cursor)
        if step == "next" or (step == "jump" and not fails and self.own(self.cursor.next_offset or 0)):
            self.cursor = self.accept(self.cursor)
            self.handled, self.handled_epoch = poll, self.cursor.epoch
            return
        if not fails:
            self.seek(by_poller=True)
        if self.cursor.epoch == epoch:
            self.epoch += 1
            self.cursor = self.cursor.ended(poll[-1] + 1, self.epoch)

    @precondition(lambda self: self.handled)
    @rule(count=st.integers(1, 4))
    def a_piece_is_applied(self, count: int) -> None:
        piece, self.handled = self.handled[:count], self.handled[count:]
        if not self.still():
            self.handled = []
            return
        assert self.cursor.next_offset is not None
        if self.position < self.cursor.next_offset:
            self.handled = []
            self.seek_to(self.position, by_poller=True)
            return
        fresh = [offset for offset in piece if offset >= self.position]
        if fresh:
            skipped = [offset for offset in range(self.position, fresh[0]) if offset in self.readable]
            assert not skipped, f"{fresh} applied at {self.position}, past {skipped}"
        self.position = max(self.position, piece[-1] + 1)
        self.cursor = self.cursor.applied(piece[-1] + 1)

    @precondition(lambda self: self.handled)
    @rule(said=st.booleans())
    def it_fails(self, said: bool) -> None:
        """Even what follows a failure may fail, as it did where a time-out had no text."""
        end, self.handled = self.handled[-1] + 1, []
        self.unsaid = self.unsaid or not said
        if said and self.still():
            self.epoch += 1
            self.cursor = self.cursor.ended(end, self.epoch)

    @invariant()
    def nobody_waits_for_a_seek_that_does_not_come(self) -> None:
        if self.polls or self.handled or self.unsaid or self.cursor.state in ("unsought", "stopped"):
            return
        waits_from = self.holding.first(PLACE)
        passed = range(max(self.cursor.next_offset or 0, self.begin), self.fetch_at if waits_from is None else waits_from)
        assert not (waiting := self.readable & set(passed)), f"{waiting} were handed over, not applied, and are not sought"

    # the other task, other members, operators

    @precondition(lambda self: self.cursor.state in ("unsought", "stopped"))
    @rule()
    def upkeep(self) -> None:
        self.epoch += 1
        self.cursor = self.cursor.due(1.0, self.epoch)
        self.seek(by_poller=False)

    @rule(data=st.data())
    def the_group_rebalances(self, data: st.DataObject) -> None:
        """A poll may be on its way, or being applied; the other member may have applied more meanwhile."""
        later = data.draw(st.integers(self.position, self.end))
        if not removed(PARTITION, self.position, self.begin):
            self.position = later
        self.fetch_at = data.draw(st.integers(self.begin, self.end))
        self.holding.drop_all()
        self.assign()

    @precondition(lambda self: not self.handled)
    @rule(data=st.data())
    def an_older_projection_is_swapped_in(self, data: st.DataObject) -> None:
        if self.begin <= self.position:
            self.position = data.draw(st.integers(self.begin, self.position))


@pytest.mark.hypothesis
def test_what_is_applied_has_no_gap_but_the_logs_own() -> None:
    found = settings(max_examples=examples(200), stateful_step_count=30, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Partition, settings=found)


# each part of the law, taken away


class KeepsItsLicence(Partition):
    """The licence lasts until the accepted poll is applied."""

    judge = staticmethod(lambda cursor: cursor)
    accept = staticmethod(lambda cursor: replace(cursor.accept(0.0), may_jump=cursor.may_jump))


class LicensesAnyTask(Partition):
    """A seek gives a licence whoever asked for it."""

    def seek_to(self, offset: int, by_poller: bool) -> None:
        super().seek_to(offset, True)


class DisregardsEpochs(Partition):
    """What was accepted is applied whatever happened to the partition meanwhile."""

    def still(self) -> bool:
        return True


class BelievesTheClient(Partition):
    """A jump under a licence is believed although the log begins above."""

    def own(self, offset: int) -> bool:
        return True


class HoldsAcrossSeeks(Partition):
    """What waits is kept where the partition is read anew."""

    def drop(self) -> None:
        pass


class JoinsWhatItHolds(Partition):
    """What waits and what was taken later are one poll, whatever lies between."""

    def __init__(self) -> None:
        super().__init__()
        self.holding = Joining("toy")


class Joining(Holding):
    def hand_over(self, taken: Taken, end: Any, now: float, most: int) -> Any:
        found = super().hand_over(taken, end, now, most)
        for place, later in (super().hand_over({}, end, now, most) if found else {}).items():
            found[place] = [*found.get(place, []), *later]
        return found


def test_with_what_waits_across_a_seek_a_jump_is_believed_that_passes_over_records() -> None:
    partition = HoldsAcrossSeeks()
    partition.records(2)
    partition.records(2, own=True)
    partition.fetch_at = 2
    partition.poll(4)
    partition.seek(by_poller=True)
    partition.poll(4, waits=True)
    partition.handle(fails=False)
    with pytest.raises(AssertionError, match=r"past \[0, 1\]"):
        partition.a_piece_is_applied(4)


def test_with_what_waits_joined_to_what_does_not_follow_it_removed_records_are_passed_over() -> None:
    partition = JoinsWhatItHolds()
    partition.upkeep()
    partition.records(1, own=True)
    partition.poll(4)
    partition.records(2)
    partition.records(1)
    partition.begin = 3
    partition.poll(4)
    partition.handle(fails=False)
    partition.a_piece_is_applied(1)
    with pytest.raises(AssertionError, match=r"past \[1, 2\]"):
        partition.a_piece_is_applied(3)


def test_with_a_licence_that_lasts_a_poll_that_fails_without_a_rewind_is_lost() -> None:
    """As it was when asyncpg's time-out had no text to log: the rewind failed too."""
    partition = KeepsItsLicence()
    partition.records(4)
    partition.poll(2)
    partition.handle(fails=False)
    partition.poll(2)
    partition.handle(fails=False)
    partition.it_fails(said=False)
    partition.poll(2)
    partition.handle(fails=False)
    with pytest.raises(AssertionError, match=r"past \[0, 1\]"):
        partition.a_piece_is_applied(2)


def test_with_a_licence_from_any_task_a_poll_that_was_on_its_way_is_believed() -> None:
    partition = LicensesAnyTask()
    partition.records(4)
    partition.fetch_at = 2
    partition.poll(2)
    partition.upkeep()
    partition.handle(fails=False)
    with pytest.raises(AssertionError, match=r"past \[0, 1\]"):
        partition.a_piece_is_applied(2)


def test_without_epochs_what_was_accepted_before_a_rebalance_is_applied_behind_what_was_not() -> None:
    partition = DisregardsEpochs()
    partition.records(4)
    partition.position = 2
    partition.upkeep()
    partition.poll(2)
    partition.handle(fails=False)
    partition.position = 0
    partition.assign()
    partition.upkeep()
    with pytest.raises(AssertionError, match=r"past \[0, 1\]"):
        partition.a_piece_is_applied(2)


def test_without_a_look_at_the_logs_beginning_removed_records_are_passed_over() -> None:
    partition = BelievesTheClient()
    partition.records(4)
    partition.poll(2)
    partition.handle(fails=False)
    partition.begin = 2
    partition.poll(2)
    partition.handle(fails=False)
    with pytest.raises(AssertionError, match=r"past \[0, 1\]"):
        partition.a_piece_is_applied(2)
