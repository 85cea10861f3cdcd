"""The catalogue of topics is what the documentation says: one topic per event, keyed so that what must stay ordered shares a key."""

import re

import pytest

from schemas.base import NAME_PATTERN
from schemas.envelope import decode, encode
from schemas.generate.examples import EXAMPLES, JOB, MODEL
from schemas.steps import EXECUTOR_OF, INPUTS_OF, OUTPUTS_OF, SERVICES
from schemas.topics import (
    CATALOGUE,
    DATASETS,
    DISCARDS,
    EVENT_TYPES,
    JOBS,
    LATEST,
    MODELS,
    PROGRESS,
    REQUESTS,
    TOPIC_OF,
    aggregate_key,
)

_DAY_MS = 86_400_000


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_every_event_is_on_exactly_one_topic(name: str) -> None:
    assert [topic.name for topic in CATALOGUE if EVENT_TYPES[name] in topic.events] == [TOPIC_OF[name].name]


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_an_event_is_keyed_as_its_topic_says(name: str) -> None:
    known = {"job id": JOB, "model name": MODEL, "data set name": "support", "service": "registry"}
    assert aggregate_key(EXAMPLES[name].data) == known[TOPIC_OF[name].key]


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_the_key_can_still_be_told_after_the_record_was_read(name: str) -> None:
    event = EXAMPLES[name]
    read = decode(*encode(event), EVENT_TYPES, event.time)
    assert aggregate_key(read.data) == aggregate_key(event.data)  # type: ignore[union-attr]


def test_outsiders_write_requests_and_nothing_else() -> None:
    assert [topic for topic in CATALOGUE if {"outside", "edge"} & set(topic.writers)] == [REQUESTS]
    assert all(set(topic.writers) <= set(SERVICES) for topic in CATALOGUE if topic is not REQUESTS)


def test_what_happened_is_kept_for_ever_and_only_progress_and_dead_letters_pass() -> None:
    kept = {topic.name: topic.retention_ms for topic in CATALOGUE}
    for_ever = {topic.name for topic in CATALOGUE if topic.lasts}
    assert {topic.name for topic in (REQUESTS, JOBS, MODELS, DATASETS, DISCARDS)} == for_ever
    assert kept[PROGRESS.name] == _DAY_MS
    assert {kept[f"neuroweaver.{service}.dlq"] for service in SERVICES} == {30 * _DAY_MS}
    assert [topic for topic in CATALOGUE if topic.cleanup == "compact"] == [LATEST]


def test_names_are_ones_that_kafka_takes_and_none_is_used_twice() -> None:
    names = [topic.name for topic in CATALOGUE]
    assert len(set(names)) == len(names)
    assert all(re.match(NAME_PATTERN, name) for name in names)


def test_every_kind_of_step_has_one_executor_and_its_inputs_and_outputs() -> None:
    assert set(EXECUTOR_OF) == set(INPUTS_OF) == set(OUTPUTS_OF)
    assert set(EXECUTOR_OF.values()) <= set(SERVICES) - {"orchestrator"}
