"""What every reader and writer of the topics may rely on: CloudEvents 1.0, binary out, binary and structured in."""

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.attributes import ATTRIBUTE_LIMIT
from schemas.base import FIRST_YEAR, LAST_YEAR
from schemas.envelope import Event, Unhandled, UnknownVersion, Unreadable, decode, encode
from schemas.generate.examples import EXAMPLES
from schemas.ids import child_traceparent, new_id, trace_id
from schemas.requests import JobRequested
from schemas.topics import EVENT_TYPES

APPENDED = datetime(2030, 1, 1, tzinfo=UTC)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=ATTRIBUTE_LIMIT)
TIMES = st.datetimes(datetime(FIRST_YEAR, 1, 1), datetime(LAST_YEAR, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
of_every_event = pytest.mark.parametrize("event", EXAMPLES.values(), ids=EXAMPLES.keys())

Headers = list[tuple[str, bytes]]


def read(value: bytes, headers: Headers) -> Event:
    event = decode(value, headers, EVENT_TYPES, APPENDED)
    assert isinstance(event, Event)
    return event


def structured(event: Event, **changes: Any) -> tuple[bytes, Headers]:
    """The event as others may send it: every attribute and the data in one JSON object."""
    value, headers = encode(event)
    attributes = {name.removeprefix("ce_"): text.decode() for name, text in headers if name.startswith("ce_")}
    body = {**attributes, "datacontenttype": "application/json", "data": json.loads(value), **changes}
    return json.dumps(body).encode(), [("content-type", b"application/cloudevents+json; charset=UTF-8")]


def changed(headers: Headers, **attributes: str | None) -> Headers:
    """Headers with some `ce_` attributes replaced, or left out where None."""
    kept = [(name, text) for name, text in headers if name.removeprefix("ce_") not in attributes]
    return kept + [(f"ce_{name}", text.encode()) for name, text in attributes.items() if text is not None]


@of_every_event
def test_what_is_written_is_read_again(event: Event) -> None:
    assert read(*encode(event)) == event


@of_every_event
def test_structured_mode_says_the_same_as_binary_mode(event: Event) -> None:
    assert read(*structured(event)) == event


@of_every_event
def test_a_record_is_readable_json_with_headers_of_text(event: Event) -> None:
    value, headers = encode(event)
    assert isinstance(json.loads(value.decode()), dict)
    known = {name: text.decode() for name, text in headers}
    assert len(known) == len(headers)
    assert known["ce_specversion"] == "1.0"
    assert known["ce_type"] == f"neuroweaver.{event.type}"
    assert known["ce_dataschema"] == f"urn:neuroweaver:{event.type}:1"
    assert known["content-type"] == "application/json"
    assert known["ce_time"].endswith("Z")
    assert {name for name in known if not name.startswith("ce_")} == {"content-type"}


def test_the_data_of_a_job_requested_are_the_fields_of_the_request() -> None:
    asked = EXAMPLES["JobRequested"]
    assert isinstance(asked.data, JobRequested)
    assert json.loads(encode(asked)[0]) == asked.data.request


@given(
    id=TEXT, source=TEXT, subject=TEXT, time=TIMES, correlation_id=TEXT, causation_id=st.none() | TEXT,
    sequence=st.none() | st.integers(0, 10**16 - 1),
)  # fmt: skip
def test_an_envelope_of_any_text_survives_both_modes(**attributes: Any) -> None:
    event = EXAMPLES["ModelPromoted"]._replace(**attributes)
    assert read(*encode(event)) == event
    assert read(*structured(event)) == event


def test_a_number_is_padded_so_that_numbers_sort_as_text() -> None:
    texts = [dict(encode(EXAMPLES["JobCompleted"]._replace(sequence=n))[1])["ce_sequence"] for n in (9, 10, 123_456)]
    assert sorted(texts) == texts
    assert {len(text) for text in texts} == {16}


@given(st.integers(2, 500))
def test_ids_are_uuid_version_7_and_sort_by_the_time_of_their_making(count: int) -> None:
    ids = [new_id() for _ in range(count)]
    assert {uuid.UUID(text).version for text in ids} == {7}
    assert {uuid.UUID(text).variant for text in ids} == {uuid.RFC_4122}
    stamps = [text[:13] for text in ids]
    assert sorted(stamps) == stamps
    assert len(set(ids)) == count


def test_a_trace_goes_on_from_hop_to_hop_in_spans_of_its_own() -> None:
    parents = [EXAMPLES["JobRequested"].traceparent]
    for _ in range(20):
        parents.append(child_traceparent(parents[-1]))
    assert len({trace_id(parent) for parent in parents}) == 1
    assert len({parent.split("-")[2] for parent in parents}) == len(parents)


@pytest.mark.parametrize("sent", [None, "", "nonsense", "00-short-00f067aa0ba902b7-01", f"00-{'a' * 32}-{'b' * 16}-01\n"])
def test_an_event_without_a_usable_trace_gets_one_that_is_the_same_for_every_reader(sent: str | None) -> None:
    value, headers = encode(EXAMPLES["JobRequested"])
    first, second = (read(value, changed(headers, traceparent=sent)) for _ in range(2))
    assert first.traceparent == second.traceparent
    assert trace_id(first.traceparent)


def test_what_a_sender_leaves_out_is_filled_in() -> None:
    value, headers = encode(EXAMPLES["JobRequested"])
    bare = changed(
        headers, time=None, subject=None, dataschema=None, correlationid=None, causationid=None, traceparent=None
    )
    event = read(value, bare)
    assert event.time == APPENDED
    assert event.subject == ""
    assert event.correlation_id == json.loads(value)["job_id"]
    assert event.causation_id is None
    assert event.sequence is None


def test_whatever_a_sender_correlates_by_a_job_is_correlated_by_its_id() -> None:
    value, headers = encode(EXAMPLES["JobRequested"])
    assert read(value, changed(headers, correlationid="request-4711")).correlation_id == json.loads(value)["job_id"]


@pytest.mark.parametrize("sequence", ["7", "a-b", "²"])
def test_a_number_of_a_sender_who_numbers_nothing_is_ignored(sequence: str) -> None:
    value, headers = encode(EXAMPLES["JobRequested"])
    assert read(value, changed(headers, sequence=sequence)).sequence is None


def test_a_step_and_a_job_with_the_longest_names_have_a_subject_that_is_read() -> None:
    event = EXAMPLES["StepCompleted"]._replace(subject="/".join(("j" * 128, "s" * 128, "1000")))
    assert read(*encode(event)) == event


def test_a_time_of_any_zone_is_read_as_utc() -> None:
    value, headers = encode(EXAMPLES["JobRequested"])
    event = read(value, changed(headers, time="2030-01-01T03:30:00+02:00"))
    assert event.time == datetime(2030, 1, 1, 1, 30, tzinfo=UTC)
    assert event.time.tzinfo is UTC
    east = event._replace(time=datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=5))))
    assert dict(encode(east)[1])["ce_time"] == b"2029-12-31T19:00:00.000000Z"


@pytest.mark.parametrize("content_type", [None, b"application/json", b"application/json; charset=utf-8", b"text/plain"])
def test_binary_mode_needs_no_content_type(content_type: bytes | None) -> None:
    value, headers = encode(EXAMPLES["JobRequested"])
    others = [(name, text) for name, text in headers if name != "content-type"]
    more: Headers = [("content-type", content_type)] if content_type else []
    assert read(value, others + more) == EXAMPLES["JobRequested"]


@pytest.mark.parametrize(
    "name", ["Content-Type", "content-type", "CONTENT-TYPE"]
)  # fmt: skip
@pytest.mark.parametrize("kind", [b"application/cloudevents+json", b"Application/CloudEvents+JSON;charset=utf-8"])
def test_structured_mode_is_known_by_its_media_type_in_any_case(name: str, kind: bytes) -> None:
    value, _ = structured(EXAMPLES["JobRequested"])
    assert read(value, [(name, kind)]) == EXAMPLES["JobRequested"]


def test_a_stray_data_content_type_and_unknown_extensions_are_no_fault() -> None:
    value, headers = encode(EXAMPLES["JobRequested"])
    more = changed(headers, datacontenttype="application/json", tracestate="vendor=" + "x" * 500, partitionkey="k")
    assert read(value, [*more, ("ce_baggage", b"\xff"), ("x-other", b"\xff")]) == EXAMPLES["JobRequested"]
    assert read(*structured(EXAMPLES["JobRequested"], tracestate="y" * 500, more=[1, 2])) == EXAMPLES["JobRequested"]


def test_types_that_a_reader_does_not_handle_are_told_apart_from_faults() -> None:
    value, headers = encode(EXAMPLES["JobCompleted"])
    assert isinstance(decode(value, headers, {"JobRequested"}, APPENDED), Unhandled)
    for foreign in ("com.example.Order", "neuroweaver.Unheard", "neuroweaver.Unheard.v2", "JobCompleted"):
        assert isinstance(decode(value, changed(headers, type=foreign), EVENT_TYPES, APPENDED), Unhandled)


def test_a_breaking_version_of_a_handled_type_stops_the_reader() -> None:
    value, headers = encode(EXAMPLES["JobCompleted"])
    with pytest.raises(UnknownVersion, match="upgrade"):
        decode(value, changed(headers, type="neuroweaver.JobCompleted.v2"), EVENT_TYPES, APPENDED)
    unhandled = decode(value, changed(headers, type="neuroweaver.JobCompleted.v2"), {"JobRequested"}, APPENDED)
    assert isinstance(unhandled, Unhandled)


def objects_in(value: Any) -> Iterator[dict[str, Any]]:
    """Every object within JSON, `value` first."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects_in(part)


MAPS = (
    "inputs",
    "outputs",
    "results",
    "metrics",
    "facts",
    "needs",
    "parent_metrics",
    "configuration",
    "tags",
    "aliases",
    "rows",
)
"""Fields that map names of the sender's choice: what is in them is content, not a field."""


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "JobRequested"])
def test_fields_of_a_newer_release_are_ignored_wherever_they_are(name: str) -> None:
    """During a roll-out a newer orchestrator talks to an older trainer, settings of steps included."""
    value, headers = encode(EXAMPLES[name])
    body = json.loads(value)
    maps = {id(found[key]) for found in objects_in(body) for key in MAPS if isinstance(found.get(key), dict)}
    inside = {
        id(part) for found in objects_in(body) for part in objects_in(found.get("configuration")) if found is not part
    }
    for found in list(objects_in(body)):
        if id(found) not in maps | inside:
            found["of_a_newer_release"] = {"x": [1]}
    newer = json.dumps(body).encode()
    assert newer != value
    assert read(newer, headers) == EXAMPLES[name]


def test_every_event_of_the_catalogue_has_an_example() -> None:
    assert set(EXAMPLES) == set(EVENT_TYPES)


@pytest.mark.parametrize("missing", ["id", "source", "type", "specversion"])
def test_a_required_attribute_that_is_missing_is_named(missing: str) -> None:
    value, headers = encode(EXAMPLES["JobCompleted"])
    with pytest.raises(Unreadable, match=f"`{missing}`"):
        decode(value, changed(headers, **{missing: None}), EVENT_TYPES, APPENDED)
    body, kind = structured(EXAMPLES["JobCompleted"], **{missing: None})
    with pytest.raises(Unreadable, match=f"`{missing}`"):
        decode(body, kind, EVENT_TYPES, APPENDED)


def test_a_time_that_no_database_gives_back_is_no_time_of_ours() -> None:
    value, headers = encode(EXAMPLES["JobCompleted"])
    for time in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2030-01-01T00:00:00", "1762075800000"):
        with pytest.raises(Unreadable, match="`time`"):
            decode(value, changed(headers, time=time), EVENT_TYPES, APPENDED)
