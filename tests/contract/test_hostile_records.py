"""Whatever lies on a topic, reading it ends in an event, a type that is not ours, a dead letter, or a stop that says why.

Anything else would stop a partition for good, or lose what lies behind it.
"""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.envelope import Event, Unhandled, UnknownVersion, Unreadable, decode, encode
from schemas.generate.examples import EXAMPLES
from schemas.requests import JobRequested
from schemas.topics import EVENT_TYPES

APPENDED = datetime(2030, 1, 1, tzinfo=UTC)
STRUCTURED = b"application/cloudevents+json"
HEADER_NAMES = st.sampled_from(
    ["content-type", *(name for name, _ in encode(EXAMPLES["ModelRegistered"])[1]), "ce_", "ce_data", "x", ""]
)
ANY_TEXT = st.text(st.characters(), max_size=300)
"""Lone surrogates and NUL included."""
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
ANY_BYTES = st.binary(max_size=300) | ANY_TEXT.map(lambda text: text.encode("utf-8", "surrogatepass"))

Headers = list[tuple[str, bytes | None]]


def read(value: bytes | None, headers: Headers) -> Event | Unhandled | None:
    """What becomes of a record; None for a dead letter. What a service keeps must be storable as text and JSON."""
    try:
        found = decode(value, headers, EVENT_TYPES, APPENDED)
    except (Unreadable, UnknownVersion) as error:
        said = str(error)
    else:
        assert_storable(found)
        return found
    assert said
    assert b"\x00" not in said.encode()
    return None


def assert_storable(found: Event | Unhandled) -> None:
    """PostgreSQL takes no NUL, UTF-8 no lone surrogate."""
    if isinstance(found, Event):
        kept, attributes = encode(found)
        assert "\\u0000" not in json.dumps(json.loads(kept))
        assert b"\x00" not in b"".join(text for _, text in attributes)
        assert found.time.tzinfo is UTC


def is_json(value: Any) -> bool:
    """Whether `value` has no number that JSON cannot write."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def headers_of(name: str) -> Headers:
    return list(encode(EXAMPLES[name])[1])


@given(st.none() | ANY_BYTES, st.lists(st.tuples(HEADER_NAMES, st.none() | ANY_BYTES), max_size=8))
def test_any_bytes_under_any_headers(value: bytes | None, headers: Headers) -> None:
    read(value, headers)


@given(st.sampled_from(sorted(EXAMPLES)), HEADER_NAMES, st.none() | ANY_BYTES)
@example("JobCompleted", "ce_sequence", "²".encode())
@example("JobCompleted", "ce_sequence", "٣".encode())
@example("JobCompleted", "ce_sequence", b"-1")
@example("JobCompleted", "ce_sequence", b"9" * 200)
@example("JobCompleted", "ce_time", b"9999-12-31T23:59:59-12:00")
@example("JobCompleted", "ce_time", b"0001-01-01T00:00:00+12:00")
@example("JobCompleted", "ce_time", b"2030-W01-1")
@example("JobCompleted", "ce_id", b"a\x00b")
@example("JobCompleted", "ce_traceparent", b"\x00")
def test_any_header_of_a_good_record_replaced(name: str, header: str, text: bytes | None) -> None:
    value, headers = encode(EXAMPLES[name])
    read(value, [*((known, old) for known, old in headers if known != header), (header, text)])


@given(st.sampled_from(sorted(EXAMPLES)), ANY_JSON)
def test_any_json_as_data(name: str, data: Any) -> None:
    read(json.dumps(data).encode(), headers_of(name))


@given(st.sampled_from(sorted(EXAMPLES)), st.data())
def test_any_json_in_place_of_any_field(name: str, data: st.DataObject) -> None:
    body = json.loads(encode(EXAMPLES[name])[0])
    field = data.draw(st.sampled_from(sorted(body)))
    body[field] = data.draw(ANY_JSON)
    read(json.dumps(body).encode(), headers_of(name))


@given(
    st.dictionaries(
        st.sampled_from(
            ["id", "source", "type", "specversion", "time", "subject", "sequence", "correlationid", "data", "x"]
        ),
        ANY_JSON
        | st.sampled_from(["1.0", "neuroweaver.JobCompleted", "neuroweaver.JobRequested", {"job_id": "j"}, "\ud800"]),
    )
)
@example({"specversion": "1.0", "id": "\ud800", "source": "s", "type": "neuroweaver.JobRequested", "data": {"job_id": "j"}})
@example(
    {
        "specversion": "1.0",
        "id": "i",
        "source": "s",
        "type": "neuroweaver.JobRequested",
        "data": {"job_id": "j"},
        "subject": "\udfff",
    }
)
@example({"specversion": "1.0", "id": "i", "source": "s", "type": "neuroweaver.JobRequested", "data": {"job_id": "\ud800"}})
@example(
    {"specversion": 1.0, "id": 7, "source": ["s"], "type": "neuroweaver.JobRequested", "data": {"job_id": "j", "x": "\x00"}}
)
def test_any_structured_event(body: dict[str, Any]) -> None:
    read(json.dumps(body).encode(), [("content-type", STRUCTURED)])


@pytest.mark.parametrize(
    "value",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"job_id": "j", "deep": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"job_id": "j", "n": ' + b"9" * 5000 + b"}",
        b'{"job_id": "j", "n": 1e999}',
        b'{"job_id": "j", "n": NaN}',
        b'{"job_id": "j", "n": Infinity}',
        b"\xff\xfe\x00",
        b"\xef\xbb\xbf{}",
        b"null",
        b"",
    ],
    ids=["open", "nested", "deep", "long-number", "huge", "nan", "infinity", "bytes", "bom", "null", "empty"],
)
@pytest.mark.parametrize("name", ["JobRequested", "JobCancelRequested", "StepCompleted", "ModelRegistered"])
def test_values_made_to_break_parsers(name: str, value: bytes) -> None:
    read(value, headers_of(name))


@given(ANY_JSON.filter(is_json))
def test_a_job_requested_whose_id_can_be_read_is_always_answered(content: Any) -> None:
    """Whatever else is wrong with it: its sender waits for JobRejected, not for silence."""
    body = {**(content if isinstance(content, dict) else {"dataset": content}), "job_id": "job-1"}
    found = read(json.dumps(body).encode(), headers_of("JobRequested"))
    assert isinstance(found, Event)
    assert isinstance(found.data, JobRequested)
    assert found.data.job_id == "job-1"


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("[" * 500 + "]" * 500, "nested deeper"),
        ('{"a":' * 80 + "1" + "}" * 80, "nested deeper"),
        ("9" * 400, "beyond a double"),
        ("9" * 10_000, "beyond a double"),
        ("1e999", "beyond a double"),
        (r'"\u0000"', "NUL"),
        (r'"\ud800"', "surrogate"),
    ],
)
def test_what_cannot_be_kept_of_a_job_requested_is_a_reason_for_its_sender(field: str, says: str) -> None:
    value = f'{{"job_id": "job-1", "training": {{"seed": {field}}}}}'.encode()
    found = read(value, headers_of("JobRequested"))
    assert isinstance(found, Event)
    assert isinstance(found.data, JobRequested)
    (fault,) = found.data.faults
    assert fault.field.startswith("training.seed")
    assert says in fault.message


@pytest.mark.parametrize("job_id", [None, 7, "", "x" * 257, ["a"], {}, "a\x00b", "\ud800", True])
def test_a_job_requested_without_a_usable_id_is_a_dead_letter_that_names_the_field(job_id: object) -> None:
    with pytest.raises(Unreadable, match="job_id"):
        decode(json.dumps({"job_id": job_id}).encode(), headers_of("JobRequested"), EVENT_TYPES, APPENDED)


@pytest.mark.parametrize(
    ("value", "headers", "says"),
    [
        (None, headers_of("JobRequested"), "no value"),
        (b"not json", headers_of("JobRequested"), "not JSON"),
        (b"{}", [], "binary mode"),
        (b"[]", [("content-type", STRUCTURED)], "JSON object"),
        (b"[]", headers_of("StepCompleted"), "JSON object"),
        (b"{}", headers_of("StepCompleted"), "job_id"),
    ],
)
def test_a_dead_letter_says_what_is_wrong(value: bytes | None, headers: Headers, says: str) -> None:
    with pytest.raises(Unreadable, match=says):
        decode(value, headers, EVENT_TYPES, APPENDED)
