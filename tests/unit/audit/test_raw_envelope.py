"""The decoded columns say what the envelope says, whatever bytes a record holds."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.attributes import PREFIX
from schemas.envelope import encode
from schemas.generate.examples import EXAMPLES
from services.audit.raw_envelope import RawEnvelope, read_envelope


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_event_of_ours_is_read_as_it_was_written(name: str) -> None:
    event = EXAMPLES[name]
    found = read_envelope(*encode(event))
    assert found.type == PREFIX + event.type
    assert (found.id, found.source, found.subject or "") == (event.id, event.source, event.subject)
    assert (found.time, found.sequence, found.causation_id) == (event.time, event.sequence, event.causation_id)
    assert found.job_id == event.correlation_id


def test_structured_mode_is_read_alike() -> None:
    envelope = {
        "id": "1",
        "type": "t",
        "source": "s",
        "time": "2026-01-01T01:00:00+01:00",
        "sequence": 7,
        "data": {"job_id": "j"},
    }
    found = read_envelope(json.dumps(envelope).encode(), [("content-type", b"application/cloudevents+json; charset=utf-8")])
    assert found == RawEnvelope("t", "1", "s", None, "j", datetime(2026, 1, 1, tzinfo=UTC), 7, None)


def test_what_cannot_be_read_is_left_out_and_nothing_is_raised() -> None:
    headers = [("ce_time", b"soon"), ("ce_sequence", b"9" * 40), ("ce_id", b"\xff"), ("ce_type", None)]
    assert read_envelope(b"{", headers) == RawEnvelope(id="\\xff")
    assert read_envelope(b'{"job_id": "\\ud800"}', []) == RawEnvelope(job_id="\\ud800")
    assert read_envelope(b"[" * 100_000, []) == read_envelope(None, []) == RawEnvelope()
    assert read_envelope(b"1" * 5000, [("content-type", b"application/cloudevents+json")]) == RawEnvelope()


@given(
    st.none() | st.binary(max_size=30),
    st.lists(st.tuples(st.text(max_size=10), st.none() | st.binary(max_size=10)), max_size=4),
)
def test_any_record_says_something_that_can_be_written_as_text(
    value: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    found = read_envelope(value, headers)
    for text in (found.type, found.id, found.source, found.subject, found.job_id, found.causation_id):
        assert text is None or text.encode()
