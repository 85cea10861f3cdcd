"""The contract keeps what was released: only optional fields come and go; every other change is found, and told with its remedy."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from schemas.envelope import Event, Unhandled, UnknownVersion, Unreadable, decode, encode
from schemas.evolution import upcasting
from schemas.evolution.compatibility import found, incompatible
from schemas.evolution.history import AlreadyReleased, broken, contract, release, releases
from schemas.evolution.upcasting import Upcaster
from schemas.generate.examples import EXAMPLES
from schemas.jobs import StepStarted
from schemas.requests import JobRequested
from schemas.topics import EVENT_TYPES, JOBS, REQUESTS, TOPIC_OF

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["id", "kind"],
    "properties": {
        "id": {"type": "string", "maxLength": 9, "pattern": "^a"},
        "kind": {"type": "string", "enum": ["x", "y"]},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "parts": {"type": "array", "items": {"$ref": "#/$defs/Part"}},
        "sizes": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
        "way": {"anyOf": [{"$ref": "#/$defs/One"}, {"$ref": "#/$defs/Two"}]},
    },
    "$defs": {
        "Part": {
            "type": "object",
            "required": ["n"],
            "properties": {"n": {"type": "integer"}, "of": {"$ref": "#/$defs/Part"}},
        },
        "One": {"type": "object", "required": ["is"], "properties": {"is": {"const": "one", "type": "string"}}},
        "Two": {"type": "object", "required": ["is"], "properties": {"is": {"const": "two", "type": "string"}}},
    },
}


def changed(edit: str) -> list[str]:
    """What is found after an edit of the schema, which the text makes to `s`."""
    new = deepcopy(SCHEMA)
    exec(edit, {"s": new, "p": new["properties"], "d": new["$defs"]})
    return [f"{change.field}: {change.detail}" for change in incompatible("X", SCHEMA, new)]


@pytest.mark.parametrize("version", [version for version, _ in releases()])
def test_todays_contract_keeps_what_was_released(version: str) -> None:
    assert [str(change) for change in broken(dict(releases())[version], contract())] == []


@pytest.mark.parametrize(
    "edit",
    [
        "p['new'] = {'type': 'string'}",
        "del p['note']",
        "del p['sizes']",
        "d['Part']['properties']['m'] = {'type': 'integer'}",
        "p['id']['description'] = 'other words'",
        "s['required'].reverse()",
        "d['Piece'] = d.pop('Part'); p['parts']['items'] = {'$ref': '#/$defs/Piece'}; d['Piece']['properties']['of'] = {'$ref': '#/$defs/Piece'}",
        "p['way']['anyOf'].reverse()",
    ],
)
def test_optional_fields_come_and_go_and_words_may_change(edit: str) -> None:
    assert changed(edit) == []


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        ("p['new'] = {'type': 'string'}; s['required'].append('new')", "new: the field is new and required"),
        ("del p['id']; s['required'].remove('id')", "id: the field was required and is removed"),
        ("s['required'].append('note')", "note: the field has become required"),
        ("s['required'].remove('kind')", "kind: the field is no longer required"),
        ("p['id']['type'] = 'integer'", "id: `type` was 'string' and is 'integer'"),
        ("p['id']['maxLength'] = 8", "id: `maxLength` was 9 and is 8"),
        ("p['id']['maxLength'] = 10", "id: `maxLength` was 9 and is 10"),
        ("p['id']['pattern'] = '^b'", "id: `pattern` was '^a' and is '^b'"),
        ("p['kind']['enum'].append('z')", "kind: `enum` was ['x', 'y'] and is ['x', 'y', 'z']"),
        ("p['note']['default'] = ''", "note: `default` was None and is ''"),
        ("p['note']['anyOf'].pop()", "note: may no longer be of type null"),
        ("p['note']['anyOf'].append({'type': 'integer'})", "note: may now also be of type integer"),
        ("p['note'] = {'type': 'string', 'default': None}", "note: may no longer be of type null"),
        ("d['Part']['properties']['n']['minimum'] = 1", "parts[].n: `minimum` was 'nothing' and is 1"),
        ("d['Part']['required'].append('of')", "parts[].of: the field has become required"),
        ("p['sizes']['additionalProperties']['minimum'] = 1", "sizes.*: `minimum` was 0 and is 1"),
        ("p['sizes']['additionalProperties'] = False", "sizes: `additionalProperties` was {'type': 'integer', 'minimum': 0} and is False"),
        ("s['additionalProperties'] = False", ": `additionalProperties` was None and is False"),
        ("p['way']['anyOf'].pop()", "way: may no longer be an object with is 'two'"),
        ("d['One']['properties']['is']['const'] = 'uno'", "way: may no longer be an object with is 'one'"),
        ("p['sizes']['propertyNames'] = {'pattern': '^b'}", "sizes: `propertyNames` was None and is {'pattern': '^b'}"),
        ("p['id']['allOf'] = [{'minLength': 2}]", "id: `allOf` was 'nothing' and is [{'minLength': 2}]"),
        ("p['parts']['contains'] = {'const': 1}", "parts: `contains` was 'nothing' and is {'const': 1}"),
        ("p['note']['maxLength'] = 3", "note: `maxLength` was 'nothing' and is 3"),
        ("p['id']['const'] = True", "id: `const` was 'nothing' and is True"),
    ],
)  # fmt: skip
def test_every_other_change_is_found(edit: str, says: str) -> None:
    assert says in changed(edit)


SETTINGS: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer", "default": 1}}}
GROWN: dict[str, Any] = {"type": "object", "properties": {**SETTINGS["properties"], "m": {"type": "integer", "default": 2}}}


def in_a_default(settings: Any, default: dict[str, int]) -> dict[str, Any]:
    """A schema with settings that may be left out, alone or in a list."""
    one, many = (
        {"$ref": "#/$defs/S", "default": default},
        {"type": "array", "items": {"$ref": "#/$defs/S"}, "default": [default]},
    )
    return {"properties": {"one": one, "many": many}, "$defs": {"S": settings}}


def test_settings_that_may_be_left_out_grow_by_a_field_whose_default_they_have() -> None:
    before, after = in_a_default(SETTINGS, {"n": 1}), in_a_default(GROWN, {"n": 1, "m": 2})
    assert incompatible("X", before, after) == incompatible("X", after, before) == []


@pytest.mark.parametrize("default", [{"n": 1, "m": 3}, {"n": 2, "m": 2}, {"n": 1, "k": 2}, {"m": 2}])
def test_settings_that_are_left_out_keep_their_values_when_they_grow(default: dict[str, int]) -> None:
    before, after = in_a_default(SETTINGS, {"n": 1}), in_a_default(GROWN, default)
    assert {change.field for change in incompatible("X", before, after)} == {"one", "many"}
    assert {change.field for change in incompatible("X", after, before)} == {"one", "many"}


REF = {"$ref": "#/$defs/S"}
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"a": REF, "b": {**REF, "default": "x"}}, {"a": REF, "b": {**REF, "default": "y"}}),
        ({"a": TEXT, "b": NUMBER}, {"a": REF, "b": REF}),
        ({"a": {"anyOf": [{"items": NUMBER}, {"items": TEXT}]}}, {"a": {"anyOf": [{"items": {"type": "number"}}, {"items": TEXT}]}}),
        ({"a": {"const": 1}}, {"a": {"const": True}}),
    ],
)  # fmt: skip
def test_a_change_is_found_behind_a_second_reference_an_alternative_of_the_same_kind_or_an_equal_looking_value(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    definitions = {"S": TEXT}
    assert incompatible("X", {"properties": old, "$defs": definitions}, {"properties": new, "$defs": definitions})


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema within a schema, itself first."""
    if isinstance(schema, dict):
        yield schema
        inner = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
        inner += [one for word in ("anyOf", "oneOf", "prefixItems") for one in schema.get(word, ())]
        for one in [*inner, *(schema.get(word) for word in ("items", "additionalProperties", "propertyNames"))]:
            yield from nodes(one)


@pytest.mark.parametrize("name", contract())
def test_no_bound_and_no_needed_field_of_any_event_can_change_unnoticed(name: str) -> None:
    released = contract()[name]["schema"]
    current = deepcopy(released)
    tried = 0
    for node in nodes(current):
        for word in set(node) & {
            "type",
            "const",
            "enum",
            "format",
            "pattern",
            "default",
            "minimum",
            "maximum",
            "maxLength",
        }:
            kept, node[word] = node[word], "something else"
            assert any(found(name, released, current)), (node, word)
            node[word] = kept
            tried += 1
        for field in node.get("required", ()):
            kept, node["required"] = node["required"], [one for one in node["required"] if one != field]
            assert any(found(name, released, current)), (node, field)
            node["required"] = kept
            tried += 1
    assert tried
    assert incompatible(name, released, current) == []


def test_a_type_may_go_when_upcasters_lead_to_one_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    released = contract()
    current = {name: promise for name, promise in released.items() if name != "StepStarted"}
    monkeypatch.setitem(upcasting.UPCASTERS, "StepStarted", Upcaster("StepStarted.v2", dict))
    assert ["lead to StepStarted.v2, which is not a type" in str(one) for one in broken(released, current)] == [True]
    assert broken(released, {**current, "StepStarted.v2": released["StepStarted"]}) == []
    monkeypatch.setitem(upcasting.UPCASTERS, "StepStarted.v2", Upcaster("StepStarted", dict))
    said = "StepStarted -> StepStarted.v2 -> StepStarted"
    assert [said in str(one) for one in broken(released, current)] == [True]


def test_a_type_that_is_gone_or_moved_is_found_and_the_remedy_is_told() -> None:
    released = contract()
    current = {name: dict(promise) for name, promise in contract().items() if name != "StepStarted"}
    current["JobCompleted"]["topic"] = "neuroweaver.endings"
    said = sorted(str(change) for change in broken(released, current))
    assert said[0].startswith("JobCompleted: its topic was 'neuroweaver.jobs'")
    assert said[1].startswith("StepStarted: the type is removed")
    assert all("make it a new type" in one and "upcaster" in one for one in said)


def test_what_was_released_is_not_overwritten(tmp_path: Path) -> None:
    path = release(tmp_path, "9.9.9")
    assert release(tmp_path, "9.9.9") == path
    path.write_text(path.read_text().replace("JobCompleted", "JobDone"))
    with pytest.raises(AlreadyReleased, match="raise the version"):
        release(tmp_path, "9.9.9")


def test_an_old_type_is_read_as_its_successor_through_as_many_upcasters_as_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(
        upcasting.UPCASTERS, "StepBegan", Upcaster("StepBegan.v2", lambda data: {**data, "worker": data["who"]})
    )
    monkeypatch.setitem(upcasting.UPCASTERS, "StepBegan.v2", Upcaster("StepStarted", lambda data: {**data, "attempt": 7}))
    example = EXAMPLES["StepStarted"]
    value, headers = encode(example)
    headers = [(name, b"neuroweaver.StepBegan" if name == "ce_type" else held) for name, held in headers]
    read = decode(value.replace(b'"worker"', b'"who"'), headers, {"StepStarted"}, example.time)
    assert isinstance(read, Event)
    assert isinstance(example.data, StepStarted)
    assert read.data == example.data.model_copy(update={"attempt": 7})


class StepStartedV2(StepStarted):
    """What a breaking change of StepStarted looks like."""

    host: str

    @classmethod
    def type_name(cls) -> str:
        return "StepStarted.v2"


def test_a_second_version_travels_under_its_own_name_and_reads_what_was_written_as_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    example = EXAMPLES["StepStarted"]
    value, headers = encode(example)
    monkeypatch.setitem(EVENT_TYPES, "StepStarted.v2", StepStartedV2)
    monkeypatch.setitem(TOPIC_OF, "StepStarted.v2", JOBS)
    monkeypatch.setitem(
        upcasting.UPCASTERS, "StepStarted", Upcaster("StepStarted.v2", lambda data: {**data, "host": data["worker"]})
    )
    old = decode(value, headers, {"StepStarted.v2"}, example.time)
    assert isinstance(old, Event)
    assert isinstance(old.data, StepStartedV2)
    assert dict(encode(old)[1])["ce_type"] == b"neuroweaver.StepStarted.v2"
    assert decode(*encode(old), {"StepStarted.v2"}, example.time) == old


def test_data_that_an_upcaster_cannot_read_are_unreadable_and_no_concern_of_a_service_that_does_not_handle_the_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(
        upcasting.UPCASTERS, "StepBegan", Upcaster("StepStarted", lambda data: {**data, "worker": data["who"]})
    )
    at = EXAMPLES["StepStarted"].time
    headers = [
        (name, b"neuroweaver.StepBegan" if name == "ce_type" else held) for name, held in encode(EXAMPLES["StepStarted"])[1]
    ]
    with pytest.raises(
        Unreadable, match=r"cannot be read as StepBegan \(KeyError\('who'\)\); send data that match its schema"
    ):
        decode(b"{}", headers, {"StepStarted"}, at)
    with pytest.raises(Unreadable, match="must be a JSON object"):
        decode(b"[]", headers, {"StepStarted"}, at)
    assert isinstance(decode(b"{}", headers, {"JobCompleted"}, at), Unhandled)


def _request_of_an_older_type(data: bytes) -> Event | Unhandled:
    example = EXAMPLES["JobRequested"]
    headers = [(name, b"neuroweaver.JobWanted" if name == "ce_type" else held) for name, held in encode(example)[1]]
    return decode(data, headers, {"JobRequested"}, example.time, REQUESTS.name)


def test_a_request_of_a_sender_who_still_writes_the_older_type_is_read_where_outsiders_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(
        upcasting.UPCASTERS,
        "JobWanted",
        Upcaster("JobRequested", lambda data: {"job_id": data["job_id"], "model": data["m"]}),
    )
    read = _request_of_an_older_type(b'{"job_id":"a","m":"x"}')
    assert isinstance(read, Event)
    assert read.data == JobRequested(job_id="a", request={"job_id": "a", "model": "x"})


def test_a_request_that_its_upcaster_cannot_read_is_answered_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(upcasting.UPCASTERS, "JobWanted", Upcaster("JobRequested", lambda data: {"model": data["m"]}))
    read = _request_of_an_older_type(b'{"job_id":"a"}')
    assert isinstance(read, Event)
    assert isinstance(read.data, JobRequested)
    assert read.data.job_id == "a"
    assert [reason.remedy for reason in read.data.faults] == ["send neuroweaver.JobRequested"]


def test_a_newer_version_of_a_handled_type_stops_and_of_another_is_passed_over() -> None:
    value, headers = encode(EXAMPLES["StepStarted"])
    headers = [(name, b"neuroweaver.StepStarted.v9" if name == "ce_type" else held) for name, held in headers]
    with pytest.raises(UnknownVersion, match=r"StepStarted\.v9"):
        decode(value, headers, {"StepStarted"}, EXAMPLES["StepStarted"].time)
    assert isinstance(decode(value, headers, {"JobCompleted"}, EXAMPLES["StepStarted"].time), Unhandled)
