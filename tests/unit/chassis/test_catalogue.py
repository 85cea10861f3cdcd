"""Whatever differs between a topic and the catalogue is said, with what it means: mended by `apply`, for a person, or harmless."""

from collections.abc import Mapping

import pytest

from schemas.topics import PROGRESS, REQUESTS, Topic
from services.chassis.kafka.catalogue import TopicChange, configuration, differences
from services.chassis.kafka.metadata import FoundTopic


def found(partitions: int = 6, replicas: int = 3, in_sync: int = 3) -> FoundTopic:
    return FoundTopic("id", frozenset(range(partitions)), replicas, in_sync)


def differing(
    topic: FoundTopic | None = None, settings: Mapping[str, str] = {}, *, of: Topic = REQUESTS, brokers: int = 3
) -> list[TopicChange]:
    known = {**configuration(of), "min.insync.replicas": "2", **settings}
    return differences(of, topic or found(), known, brokers)


def test_a_topic_that_is_as_the_catalogue_says_differs_in_nothing() -> None:
    assert differing() == []
    assert differing(found(replicas=1, in_sync=1), {"min.insync.replicas": "1"}, brokers=1) == []


def test_a_topic_that_does_not_exist_is_made() -> None:
    (change,) = differences(REQUESTS, None, {}, 3)
    assert (change.action, change.loses) == ("create", True)
    assert "retention.ms=-1" in change.detail


@pytest.mark.parametrize(
    ("setting", "value"), [("retention.ms", "3600000"), ("retention.bytes", "1000000"), ("cleanup.policy", "compact")]
)
def test_a_topic_of_facts_that_does_not_keep_them_loses_them(setting: str, value: str) -> None:
    (change,) = differing(None, {setting: value})
    assert (change.action, change.loses) == ("configure", True)
    assert f"{setting}: {value} →" in change.detail


def test_a_topic_that_is_not_kept_for_ever_may_be_bounded_in_size() -> None:
    assert differing(None, {"retention.bytes": "1000000"}, of=PROGRESS) == []


@pytest.mark.parametrize(("setting", "value"), [("message.timestamp.type", "CreateTime"), ("max.message.bytes", "16384")])
def test_other_settings_are_mended_and_lose_nothing(setting: str, value: str) -> None:
    (change,) = differing(None, {setting: value})
    assert (change.action, change.loses) == ("configure", False)


def test_larger_messages_than_the_catalogue_asks_for_are_fine() -> None:
    assert differing(None, {"max.message.bytes": "10000000"}) == []


def test_fewer_partitions_are_for_a_person_and_more_are_harmless() -> None:
    assert [change.action for change in differing(found(partitions=3))] == ["conflict"]
    assert [change.action for change in differing(found(partitions=8))] == ["note"]


@pytest.mark.parametrize(
    ("topic", "least", "action", "says"),
    [
        (found(replicas=1, in_sync=1), "2", "conflict", "no event can be written"),
        (found(in_sync=1), "2", "conflict", "events wait until brokers are back"),
        (found(replicas=2, in_sync=2), "2", "note", "has 2 copies of 3 on 3 brokers"),
        (found(), "1", "note", "min.insync.replicas=1 with 3 copies"),
    ],
)
def test_copies_that_are_too_few_are_said(topic: FoundTopic, least: str, action: str, says: str) -> None:
    (change,) = differing(topic, {"min.insync.replicas": least})
    assert (change.action, change.loses) == (action, False)
    assert says in change.detail
