"""What is printed of a record is what lies on the topic, and nothing in it can steer a terminal."""

import json

import pytest
from aiokafka import ConsumerRecord

from services.cli.topic_reader import as_json, as_text


def record(value: bytes | None, *headers: tuple[str, bytes | None], key: bytes | None = b"job-1") -> ConsumerRecord:
    return ConsumerRecord(
        topic="neuroweaver.jobs",
        partition=2,
        offset=17,
        timestamp=1_767_225_600_250,
        timestamp_type=0,
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        headers=list(headers),
    )


def test_a_person_reads_place_time_key_headers_and_indented_json() -> None:
    text = as_text(record(b'{"job_id":"job-1","model":null}', ("ce_type", b"neuroweaver.JobCompleted")))
    assert text.splitlines() == [
        "neuroweaver.jobs [2] @ 17  2026-01-01T00:00:00.250Z  key job-1",
        "  ce_type: neuroweaver.JobCompleted",
        "  {",
        '    "job_id": "job-1",',
        '    "model": null',
        "  }",
    ]


def test_a_program_reads_one_line_with_the_same() -> None:
    line = as_json(record('{"a":"ä"}'.encode(), ("ce_id", b"1"), ("odd", None)))
    assert "\n" not in line
    assert json.loads(line) == {
        "topic": "neuroweaver.jobs", "partition": 2, "offset": 17, "timestamp": "2026-01-01T00:00:00.250Z", "key": "job-1",
        "headers": {"ce_id": "1", "odd": None}, "value": {"a": "ä"},
    }  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [
        b'{"a": ' + b"[" * 2000 + b"]" * 2000 + b"}", b"[" * 100_000, b'{"a": "\\ud800"}', b'{"a": NaN}', b'{"a": 1e999}', b"\xff\x00",
        b'{"a": ' + b"9" * 5000 + b"}", b"",
    ],
    ids=["deep", "open", "surrogate", "nan", "huge", "bytes", "digits", "empty"],
)  # fmt: skip
def test_what_could_not_be_printed_as_json_is_printed_as_its_bytes(value: bytes) -> None:
    odd = record(value, ("Z\udcfcrich", b"\xff"), key=b"\x00\xff")
    line = json.loads(as_json(odd).encode())
    assert line["value"] == value.decode(errors="backslashreplace")
    assert line["headers"] == {"Z\\xfcrich": "\\xff"}
    assert as_text(odd).encode()


def test_bytes_that_are_no_json_are_shown_and_cannot_steer_the_terminal() -> None:
    text = as_text(record(b"\x1b[2Jgone\xff", ("x", b"\x1b]0;title\x07"), key=None))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\\x1b[2Jgone\\xff" in text
    assert json.loads(as_json(record(None)))["value"] is None
