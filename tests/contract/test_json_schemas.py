"""What a producer or consumer of another language can check an event's data against says the same as our models."""

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError

from schemas.base import EventData
from schemas.envelope import Event, encode, schema_urn, wire_data
from schemas.generate.__main__ import ROOT
from schemas.generate.examples import EXAMPLES, REQUEST
from schemas.generate.files import SCHEMAS
from schemas.generate.json_schema import wire_model
from schemas.requests import JobRequest, JobRequested
from schemas.topics import EVENT_TYPES
from tests.json_schemas import lost_bounds, objects_in

of_every_event = pytest.mark.parametrize("model", EVENT_TYPES.values(), ids=EVENT_TYPES.keys())


def committed(model: type[EventData]) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((ROOT / SCHEMAS / f"{model.type_name()}.json").read_text())
    return schema


def validator(model: type[EventData]) -> Draft202012Validator:
    return Draft202012Validator(committed(model), format_checker=FormatChecker())


def data_of(event: Event) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(wire_data(event.data))
    return data


@of_every_event
def test_bounds_of_numbers_have_the_names_that_json_schema_knows(model: type[EventData]) -> None:
    assert lost_bounds(committed(model)) == []


@of_every_event
def test_it_is_a_schema_of_draft_2020_12(model: type[EventData]) -> None:
    schema = committed(model)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)


@of_every_event
def test_its_id_is_what_records_name_as_their_data_schema(model: type[EventData]) -> None:
    headers = dict(encode(EXAMPLES[model.type_name()])[1])
    assert committed(model)["$id"] == headers["ce_dataschema"].decode() == schema_urn(model)


@of_every_event
def test_the_example_of_every_event_is_valid(model: type[EventData]) -> None:
    validator(model).validate(data_of(EXAMPLES[model.type_name()]))


@of_every_event
def test_a_needed_field_that_is_missing_is_a_fault(model: type[EventData]) -> None:
    data = data_of(EXAMPLES[model.type_name()])
    needed = {name for name, field in wire_model(model).model_fields.items() if field.is_required()}
    assert needed
    for name in needed:
        without = {key: value for key, value in data.items() if key != name}
        assert not validator(model).is_valid(without), name


@of_every_event
def test_every_field_says_what_it_means(model: type[EventData]) -> None:
    schema = committed(model)
    silent = [
        name
        for found in objects_in(schema)
        if isinstance(found.get("properties"), dict)
        for name, field in found["properties"].items()
        if not field.get("description") and "$ref" not in field and "const" not in field
    ]
    assert silent == []


@pytest.mark.parametrize("model", [model for model in EVENT_TYPES.values() if model is not JobRequested])
def test_what_our_services_write_may_gain_fields_at_any_depth(model: type[EventData]) -> None:
    assert not any(found.get("additionalProperties") is False for found in objects_in(committed(model)))
    data = data_of(EXAMPLES[model.type_name()])
    validator(model).validate({**data, "of_a_newer_release": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 3},
        {"training": {"optimizer": {}}},
        {"training": {"optimiser": {"steps": -5}}},
        {"training": {"quantization": "int3"}},
        {"pipeline": 7},
        {"pipeline": [{"name": "a"}]},
        {"job_id": "a b"},
        {"priority": 101},
        {"evaluation": {"metrics": []}},
    ],
    ids=str,
)
def test_what_a_request_would_be_rejected_for_its_schema_refuses_too(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        JobRequest.model_validate({**REQUEST, **change})
    with pytest.raises(ValidationError):
        validator(JobRequested).validate({**REQUEST, **change})


def test_a_default_that_is_written_out_is_a_valid_setting() -> None:
    full = JobRequest.model_validate(REQUEST).model_dump(mode="json")
    validator(JobRequested).validate(full)
    assert JobRequest.model_validate(full) == JobRequest.model_validate(REQUEST)
