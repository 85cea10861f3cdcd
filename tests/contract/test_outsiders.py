"""Every JobRequested whose job id can be read is answered, as other languages, SDKs and tools write it; nothing is skipped in silence."""

import base64
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.attributes import ATTRIBUTE_LIMIT, PREFIX
from schemas.envelope import REQUEST_BYTES, REQUEST_PARTS, Event, Unhandled, Unreadable, decode, encode
from schemas.generate.examples import EXAMPLES, REQUEST
from schemas.json_text import FAULTS_AT_MOST, READ_BYTES
from schemas.requests import JobCancelRequested, JobRequested
from schemas.topics import EVENT_TYPES, JOBS, REQUESTS

APPENDED = datetime(2030, 1, 1, tzinfo=UTC)
BODY = json.dumps(REQUEST).encode()
STRUCTURED = [("content-type", b"application/cloudevents+json; charset=utf-8")]
Headers = Sequence[tuple[str, bytes | None]]
Form = tuple[bytes, Headers]


def binary(value: bytes = BODY, /, **changes: bytes | str | None) -> Form:
    """Binary mode with some headers changed, or left out where None."""
    headers = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "s", "ce_type": "neuroweaver.JobRequested", **changes}
    sent: Headers = [(n, v.encode() if isinstance(v, str) else v) for n, v in headers.items() if v is not None]
    return value, sent


def structured(headers: Headers = STRUCTURED, **changes: Any) -> Form:
    body = {"specversion": "1.0", "id": "1", "source": "s", "type": "neuroweaver.JobRequested", "data": REQUEST, **changes}
    return json.dumps({name: value for name, value in body.items() if value is not None}).encode(), headers


def read(form: Form, topic: str = REQUESTS.name) -> Event:
    found = decode(*form, EVENT_TYPES, APPENDED, topic)
    assert isinstance(found, Event)
    return found


def asked(form: Form) -> JobRequested:
    data = read(form).data
    assert isinstance(data, JobRequested)
    assert data.job_id == REQUEST["job_id"]
    return data


def renamed(change: Callable[[str], str]) -> Form:
    value, headers = binary()
    return value, [(change(name), text) for name, text in headers]


ACCEPTED: dict[str, Form] = {
    "structured": structured(),
    "structured without its media type": structured([]),
    "structured with the header of another framework": structured([("contentType", b"application/cloudevents+json")]),
    "structured, Base64": structured(data=None, data_base64=base64.b64encode(BODY).decode()),
    "structured, Base64 for URLs without its padding": structured(
        data=None, data_base64=base64.urlsafe_b64encode(BODY).decode().rstrip("=")
    ),
    "structured, Base64 in lines": structured(data=None, data_base64=base64.encodebytes(BODY).decode()),
    "structured, the data as JSON text": structured(data=BODY.decode()),
    "structured, the time null": structured(time=None),
    "media type with a charset": binary(**{"content-type": "application/json; charset=UTF-8"}),
    "header names in capitals": renamed(str.upper),
    "header names as over HTTP": renamed(lambda name: name.replace("ce_", "ce-")),
    "a media type in quotes": structured([("content-type", b'"application/cloudevents+json"')]),
    "a byte order mark": binary(b"\xef\xbb\xbf" + BODY),
    "UTF-16": binary(BODY.decode().encode("utf-16")),
    "the head of a schema registry": binary(b"\x00\x00\x00\x00\x0c" + BODY),
    "a subject that is no UTF-8": binary(ce_subject=b"Z\xfcrich"),
    "an id that is no UTF-8": binary(ce_id=b"Z\xfcrich"),
    "a source with a NUL": binary(ce_source=b"a\x00b"),
    "an id that is too long": binary(ce_id="x" * 5000),
    "a correlation id that is too long": binary(ce_correlationid="x" * 5000),
    "an empty subject": binary(ce_subject=b""),
}


@pytest.mark.parametrize("form", ACCEPTED.values(), ids=ACCEPTED)
def test_what_is_clearly_meant_is_accepted(form: Form) -> None:
    assert asked(form).faults == ()
    assert asked(form).request == REQUEST


@pytest.mark.parametrize(
    "text",
    [
        '"neuroweaver.JobRequested"', "JobRequested", "neuroweaver.jobrequested", "NEUROWEAVER.JOBREQUESTED",
        "neuroweaver.JobRequested ", " neuroweaver.JobRequested\n", "neuroweaver.job_requested", "neuroweaver/job-requested",
    ],
)  # fmt: skip
def test_a_type_is_read_however_it_is_spelt_where_outsiders_write(text: str) -> None:
    assert asked(binary(ce_type=text)).faults == ()
    assert asked(structured(type=text)).faults == ()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("neuroweaver.JobRequest", "neuroweaver.JobRequested"),
        ("neuroweaver.JobReqested", "neuroweaver.JobRequested"),
        ("com.acme.JobRequested", "neuroweaver.JobRequested"),
        ("JobCancelRequest", "neuroweaver.JobCancelRequested"),
        ("neuroweaver.JobCancelled", "neuroweaver.JobCancelRequested"),
        ("neuroweaver.JobRequested.v9", "neuroweaver.JobRequested"),
        ("neuroweaver.JobCompleted", "neuroweaver.JobRequested or neuroweaver.JobCancelRequested"),
        ("com.example.Order", "neuroweaver.JobRequested or neuroweaver.JobCancelRequested"),
        ("\ufeff\x00", "neuroweaver.JobRequested"),
    ],
)
def test_a_type_that_does_not_belong_there_is_a_dead_letter_that_names_the_right_one(text: str, meant: str) -> None:
    with pytest.raises(Unreadable) as caught:
        decode(*binary(ce_type=text), EVENT_TYPES, APPENDED, REQUESTS.name)
    assert meant in str(caught.value)


@given(st.text(max_size=40))
def test_no_type_is_skipped_in_silence_where_outsiders_write(text: str) -> None:
    form = binary(ce_type=text.encode("utf-8", "surrogatepass"))
    with suppress(Unreadable):
        assert isinstance(decode(*form, EVENT_TYPES, APPENDED, REQUESTS.name), Event)


def test_on_a_topic_of_ours_a_foreign_type_is_skipped_and_a_spelling_is_not_guessed() -> None:
    for text in ("JobRequested", "neuroweaver.jobrequested", "com.example.Order"):
        assert isinstance(decode(*binary(ce_type=text), EVENT_TYPES, APPENDED, JOBS.name), Unhandled)


ODD_TIMES = [
    "2023-01-25T19:07:06.370582GMT", "2020-07-16T13:53:54.545218America/Los_Angeles", "2026-11-02T09:30:00", "", " ",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z", "2016-12-31T23:59:60Z", "1762075800000", "0001-01-01T00:00:00+12:00",
    "1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z", "9998-12-31T23:59:59-12:00", "infinity", "-infinity", "null", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("text", ODD_TIMES)
def test_for_a_time_that_is_none_the_time_in_the_log_stands_in(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    for form in (binary(ce_time=raw), structured(time=text)):
        event = read(form)
        assert event.time == APPENDED
        assert isinstance(event.data, JobRequested)
        assert event.data.faults == ()
    cancel = read(binary(b'{"job_id": "j"}', ce_type="neuroweaver.JobCancelRequested", ce_time=raw))
    assert cancel.time == APPENDED


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-02t09:30:00z", datetime(2026, 11, 2, 9, 30, tzinfo=UTC)),
        ("2026-11-02T09:30:00.123456789Z", datetime(2026, 11, 2, 9, 30, 0, 123456, tzinfo=UTC)),
        ("2026-11-02 09:30:00+02:00", datetime(2026, 11, 2, 7, 30, tzinfo=UTC)),
        ('"2026-11-02T09:30:00Z"', datetime(2026, 11, 2, 9, 30, tzinfo=UTC)),
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("9998-12-31T23:59:59Z", datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_in_either_case_and_with_any_precision(text: str, meant: datetime) -> None:
    assert read(binary(ce_time=text)).time == meant


@given(st.datetimes(timezones=st.timezones() | st.just(UTC)))
def test_any_time_is_one_that_can_be_kept_and_given_back(time: datetime) -> None:
    found = read(binary(ce_time=time.isoformat())).time
    assert found == APPENDED or abs(found - time) < timedelta(seconds=60)
    assert 1970 <= found.year <= 9998


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"ce_id": None}, "ce_id"),
        ({"ce_source": None}, "ce_source"),
        ({"ce_specversion": None}, "ce_specversion"),
        ({"ce_specversion": "0.3"}, "ce_specversion"),
    ],
)
def test_a_needed_attribute_that_is_missing_is_told_to_the_sender(changes: dict[str, Any], field: str) -> None:
    (fault,) = asked(binary(**changes)).faults
    assert fault.field == field
    assert fault.remedy
    other = read(binary(**changes)), read(binary(**changes))
    assert other[0].id == other[1].id
    cancel = {"ce_type": "neuroweaver.JobCancelRequested", **changes}
    with pytest.raises(Unreadable, match=field):
        decode(*binary(b'{"job_id": "j"}', **cancel), EVENT_TYPES, APPENDED, REQUESTS.name)


def test_two_ids_that_cannot_be_kept_stay_two() -> None:
    ids = {read(binary(ce_id="x" * 5000 + end)).id for end in "ab"} | {read(binary(ce_id=b"\xff")).id}
    assert len(ids) == 3
    assert max(map(len, ids)) <= ATTRIBUTE_LIMIT


@pytest.mark.parametrize(
    "body",
    [
        b'{"job_id": "support-2026-11", "requester": "a", "requester": "b"}',
        b'{"job_id": "support-2026-11", "priority": 1, "priority": 1}',
        b'{"job_id": "support-2026-11", "dataset": {"reference": "a", "reference": "b"}}',
        b'{"job_id": "support-2026-11", "job_id": "support-2026-11"}',
        b'{"job_id": "support-2026-11", "job\\u005fid": "support-2026-11"}',
        b'{"job_id": "support-2026-11", "x": 1e999, "job_id": "support-2026-11"}',
    ],
)
def test_a_name_that_stands_twice_is_a_fault(body: bytes) -> None:
    assert "the field is given twice" in [fault.message for fault in asked(binary(body)).faults]
    whole = b'{"specversion": "1.0", "id": "1", "source": "s", "type": "JobRequested", "data": ' + body + b"}"
    encoded = structured(data=None, data_base64=base64.b64encode(body).decode())
    for form in ((whole, STRUCTURED), encoded, structured(data=body.decode())):
        assert "the field is given twice" in [fault.message for fault in asked(form).faults]


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"9" * 400])
def test_a_number_that_json_does_not_have_is_told_to_the_sender(number: bytes) -> None:
    (fault,) = asked(binary(BODY[:-1] + b', "priority": ' + number + b"}")).faults
    assert fault.field == "priority"
    with pytest.raises(Unreadable, match=r"is not JSON|beyond a double"):
        decode(
            *binary(b'{"job_id": "j", "x": ' + number + b"}", ce_type="neuroweaver.JobCancelRequested"),
            EVENT_TYPES,
            APPENDED,
        )


@pytest.mark.parametrize("depth", [70, 2000, 100_000])
def test_a_request_that_is_too_deep_is_answered(depth: int) -> None:
    body = BODY[:-1] + b', "a": "[{\\"", "deep": ' + b'{"a": [' * depth + b"1" + b"]}" * depth + b', "requester": "deep"}'
    data = asked(binary(body))
    assert [fault for fault in data.faults if "nested deeper" in fault.message]
    if len(body) < REQUEST_BYTES and depth < REQUEST_PARTS / 2:
        assert data.request["requester"] == "deep"
    for broken in (body[:-1], b"[" * depth, body + b"]"):
        with pytest.raises(Unreadable):
            decode(*binary(broken), EVENT_TYPES, APPENDED)


def test_a_request_that_is_too_much_is_answered_and_not_kept() -> None:
    too_much: list[Any] = ["x" * REQUEST_BYTES, [[]] * (REQUEST_PARTS + 1), [{"\x00": 1}] * (REQUEST_PARTS + 1)]
    for much in too_much:
        data = asked(binary(json.dumps({**REQUEST, "feedback": much}).encode()))
        assert data.request == {"job_id": REQUEST["job_id"]}
        assert [fault.field for fault in data.faults] == ["(request)"]
    packed = base64.b64encode(json.dumps({**REQUEST, "feedback": [[]] * (REQUEST_PARTS + 1)}).encode()).decode()
    assert asked(structured(data=None, data_base64=packed)).request == {"job_id": REQUEST["job_id"]}
    with pytest.raises(Unreadable, match=str(READ_BYTES)):
        decode(*binary(json.dumps({**REQUEST, "feedback": "x" * READ_BYTES}).encode()), EVENT_TYPES, APPENDED)


def test_of_very_many_faults_some_are_told() -> None:
    data = asked(binary(json.dumps({**REQUEST, "x": ["\x00" * 50] * 1000}).encode()))
    assert len(data.faults) == FAULTS_AT_MOST
    assert len(json.dumps([fault.model_dump() for fault in data.faults])) < 100_000


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (structured(data=None), "must be a JSON object"),
        (structured(data="no JSON"), "must be a JSON object"),
        (structured(data=None, data_base64="***"), "Base64"),
        ((b"[]", [("content-type", b"application/cloudevents-batch+json")]), "one event per record"),
        (binary(json.dumps([REQUEST]).encode()), "must be a JSON object"),
        ((b"", binary()[1]), "not JSON"),
        (binary(b'{"job_id": "\\u0000"}'), "job_id"),
        (binary(ce_type=None), "`type`"),
        (binary(b'{"job_id": "one", "job_id": "other"}'), "two ids"),
        (binary(b'{"job_id": "one", "job\\u005fid": "other"}'), "two ids"),
    ],
)
def test_what_names_no_job_is_a_dead_letter_that_says_why(form: Form, says: str) -> None:
    with pytest.raises(Unreadable, match=says):
        decode(*form, EVENT_TYPES, APPENDED, REQUESTS.name)


@pytest.mark.parametrize(
    "twice",
    [
        b'"type": "neuroweaver.JobCancelRequested"',
        b'"data": {"job_id": "other"}',
        b'"data": {}, "data": {"job_id": "other"}',
    ],
)
def test_a_structured_event_that_says_two_things_is_a_dead_letter(twice: bytes) -> None:
    value, headers = structured()
    with pytest.raises(Unreadable, match="given twice in the structured event"):
        decode(value[:-1] + b", " + twice + b"}", headers, EVENT_TYPES, APPENDED, REQUESTS.name)


def test_a_record_with_two_types_is_a_dead_letter() -> None:
    value, headers = binary()
    other = [("ce_type", b"neuroweaver.JobCancelRequested")]
    for twice in ([*headers, *other], [*other, *headers], [*headers, ("CE_TYPE", None)]):
        with pytest.raises(Unreadable, match="ce_type is given twice"):
            decode(value, twice, EVENT_TYPES, APPENDED, REQUESTS.name)
    assert asked((value, [*headers, *headers])).faults == ()


def test_a_cancel_that_names_two_jobs_cancels_none() -> None:
    form = binary(b'{"job_id": "one", "job_id": "other"}', ce_type="neuroweaver.JobCancelRequested")
    with pytest.raises(Unreadable, match="two ids"):
        decode(*form, EVENT_TYPES, APPENDED, REQUESTS.name)


def test_only_the_job_id_of_the_request_itself_says_which_job_it_is() -> None:
    within = asked(binary(BODY[:-1] + b', "dataset": {"job_id": "a", "job_id": "b"}}'))
    assert "the field is given twice" in [fault.message for fault in within.faults]
    many = b", ".join(b'"x%d": 1, "x%d": 2' % (n, n) for n in range(20))
    with pytest.raises(Unreadable, match="two ids"):
        read(binary(b"{" + many + b', "job_id": "one", "job_id": "other"}'))


def test_who_asks_for_a_cancel_is_shortened_so_that_it_can_be_told_on() -> None:
    body = json.dumps({"job_id": "j", "requester": "x" * 3_000_000}).encode()
    data = read(binary(body, ce_type="neuroweaver.JobCancelRequested")).data
    assert isinstance(data, JobCancelRequested)
    assert len(data.requester) == 256


def test_what_we_write_ourselves_is_read_as_it_is_on_its_topic() -> None:
    for name in ("JobRequested", "JobCancelRequested"):
        assert read(encode(EXAMPLES[name])) == EXAMPLES[name]
    assert PREFIX == "neuroweaver."
