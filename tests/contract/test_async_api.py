"""The AsyncAPI document is one by the official schema, tells the topics as the catalogue has them, and its examples are true."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from jsonschema.exceptions import best_match
from referencing import Registry, Resource

from schemas.envelope import decode
from schemas.generate.__main__ import ROOT
from schemas.generate.examples import EXAMPLES
from schemas.generate.files import ASYNC_API
from schemas.topics import CATALOGUE, EVENT_TYPES
from services.chassis.kafka.catalogue import configuration

_OFFICIAL = Path(__file__).parent / "vendor" / "asyncapi-3.0.0.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / ASYNC_API).read_text())
    return loaded


@pytest.fixture(scope="module")
def official() -> Draft7Validator:
    return Draft7Validator(json.loads(_OFFICIAL.read_text()))


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict) and isinstance(node.get("$ref"), str):
        yield node["$ref"]
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from references(part)


def test_it_is_valid_by_the_official_schema(document: dict[str, Any], official: Draft7Validator) -> None:
    assert best_match(official.iter_errors(document)) is None


@pytest.mark.parametrize("broken", ["partitions in words", "operation without action", "unknown member"])
def test_the_official_schema_would_refuse_a_broken_document(
    document: dict[str, Any], official: Draft7Validator, broken: str
) -> None:
    changed = json.loads(json.dumps(document))
    match broken:
        case "partitions in words":
            changed["channels"]["jobs"]["bindings"]["kafka"]["partitions"] = "six"
        case "operation without action":
            del changed["operations"]["receiveRequests"]["action"]
        case _:
            changed["topics"] = {}
    assert not official.is_valid(changed)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    resolver = Registry().with_resource("", Resource.opaque(document)).resolver()
    for reference in set(references(document)):
        if reference.startswith("#"):
            resolver.lookup(reference)
        else:
            assert (ROOT / ASYNC_API).parent.joinpath(reference).is_file(), reference


def test_channels_are_the_topics_of_the_catalogue(document: dict[str, Any]) -> None:
    channels = {channel["address"]: channel for channel in document["channels"].values()}
    assert list(channels) == [topic.name for topic in CATALOGUE]
    for topic in CATALOGUE:
        channel, kafka = channels[topic.name], channels[topic.name]["bindings"]["kafka"]
        assert (channel["x-key"], channel["x-writers"]) == (topic.key, list(topic.writers))
        assert (kafka["topic"], kafka["partitions"]) == (topic.name, topic.partitions)
        said = kafka["topicConfiguration"]
        applied = {name: value for name, value in configuration(topic).items() if name in said}  # bindings know no more
        assert applied == {"cleanup.policy": ",".join(said["cleanup.policy"]), "retention.ms": str(said["retention.ms"])}
        assert list(channel["messages"]) == ([model.type_name() for model in topic.events] or ["DeadLetter"])


def test_neuroweaver_receives_requests_and_sends_all_else(document: dict[str, Any]) -> None:
    actions = {operation["channel"]["$ref"]: operation["action"] for operation in document["operations"].values()}
    assert {channel for channel, action in actions.items() if action == "receive"} == {"#/channels/requests"}
    assert len(actions) == len(CATALOGUE)


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_an_example_is_a_record_that_our_services_read(document: dict[str, Any], name: str) -> None:
    message = document["components"]["messages"][name]
    (example,) = message["examples"]
    headers = [(header, text.encode()) for header, text in example["headers"].items()]
    event = EXAMPLES[name]
    assert decode(json.dumps(example["payload"]).encode(), headers, EVENT_TYPES, event.time) == event


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_the_headers_of_an_example_are_as_the_document_says(document: dict[str, Any], name: str) -> None:
    message = document["components"]["messages"][name]
    described = document["components"]["schemas"]["CloudEventsHeaders"]
    own = message["headers"]["allOf"][1]
    sent = message["examples"][0]["headers"]
    Draft7Validator(described).validate(sent)
    Draft7Validator(own).validate(sent)
    assert set(sent) <= set(described["properties"])
    always = {header for header in described["properties"] if header not in {"ce_causationid", "ce_sequence"}}
    assert always <= set(sent)
