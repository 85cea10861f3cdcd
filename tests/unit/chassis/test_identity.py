"""A partition is read on only in the log that its position was taken in, and only where nothing unread was removed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.kafka.metadata import FoundLog, FoundTopic
from services.chassis.kernel.consuming.identity.examine import KeptLog, Span, stop_of, stops_of

TOPIC, PLACE = "neuroweaver.requests", ("neuroweaver.requests", 3)
KEPT = KeptLog("cluster-1", "topic-1")


def cluster(cluster_id: str = "cluster-1", topic_id: str = "topic-1", partitions: int = 6) -> FoundLog:
    return FoundLog(cluster_id, {TOPIC: FoundTopic(topic_id, frozenset(range(partitions)), 1, 1)})


def test_the_log_that_was_read_is_read_on() -> None:
    assert stop_of("toy", PLACE, 7, KEPT, cluster(), Span(0, 9)) is None


def test_a_log_of_which_nothing_is_kept_yet_is_read() -> None:
    assert stop_of("toy", PLACE, 0, None, cluster(), Span(0, 9)) is None


@pytest.mark.parametrize("end", [0, 7, 100])
def test_a_topic_with_another_id_is_another_log_however_far_it_has_grown(end: int) -> None:
    found = stop_of("toy", PLACE, 7, KEPT, cluster(topic_id="topic-2"), Span(0, end))
    assert found is not None
    assert (found.cause, found.offset, found.next_offset) == ("another log", 7, None)
    assert "topic id topic-1 was read and this is topic-2" in found.reason
    assert "`neuroweaver partitions step-over toy neuroweaver.requests:0 --reason ...`" in found.reason


def test_another_cluster_is_another_log_even_where_a_topic_has_the_same_id() -> None:
    found = stop_of("toy", PLACE, 0, KEPT, cluster("cluster-2"), Span(0, 0))
    assert found is not None
    assert found.cause == "another log"
    assert "cluster cluster-1 was read and this is cluster cluster-2" in found.reason


def test_a_topic_that_does_not_exist_is_not_waited_for_in_silence() -> None:
    found = stop_of("toy", PLACE, 7, KEPT, FoundLog("cluster-1", {}), None)
    assert found is not None
    assert (found.cause, found.reason) == ("gone", "neuroweaver.requests does not exist any more; bring it back")


def test_a_position_of_a_partition_that_does_not_exist_is_refused_in_words() -> None:
    found = stop_of("toy", PLACE, 7, KEPT, cluster(partitions=3), None)
    assert found is not None
    assert found.cause == "gone"
    assert (
        "neuroweaver.requests:3 is read up to offset 7 and does not exist: neuroweaver.requests has partitions 0 to 2"
        in (found.reason)
    )


def test_a_position_beyond_the_end_is_another_log_also_where_its_id_is_the_same() -> None:
    found = stop_of("toy", PLACE, 7, KEPT, cluster(), Span(0, 6))
    assert found is not None
    assert found.cause == "beyond the end"
    assert "is read up to offset 7 but ends at 6: this is another log" in found.reason


def test_unread_records_that_were_removed_are_named_with_their_range() -> None:
    found = stop_of("toy", PLACE, 7, KEPT, cluster(), Span(9, 12))
    assert found is not None
    assert (found.cause, found.offset, found.next_offset) == ("removed", 7, 9)
    assert "neuroweaver.requests:3: offsets 7 to 8 were removed from the log before they were read" in found.reason


@given(position=st.integers(0, 20), begin=st.integers(0, 20), length=st.integers(0, 20), same=st.booleans())
def test_what_is_read_on_lies_within_the_same_log(position: int, begin: int, length: int, same: bool) -> None:
    found = stops_of(
        "toy",
        {PLACE: position},
        {TOPIC: KEPT},
        cluster(topic_id="topic-1" if same else "topic-2"),
        {PLACE: Span(begin, begin + length)},
    )
    assert (not found) == (same and begin <= position <= begin + length)
