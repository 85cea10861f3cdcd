"""A record in which nothing is odd is read quickly, and says the same as where it is read with care."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import envelope
from schemas.envelope import encode
from schemas.generate.examples import EXAMPLES
from schemas.topics import EVENT_TYPES, PROGRESS, REQUESTS

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TOPICS = st.sampled_from([REQUESTS.name, PROGRESS.name, "neuroweaver.jobs", None])
ODD = st.sampled_from(
    [
        None, b"", b"1.0", b'"1.0"', b"0.3", b"\0", b"\xff", "é".encode(), b"x" * 257, b"neuroweaver.JobRequested", b"JobRequested",
        b"neuroweaver.JobCompleted", b"neuroweaver.StepProgressed", b"application/json", b"application/cloudevents+json", b"7", b"-7",
        b"2026-01-02T03:04:05Z", b"2026-01-02t03:04:05.123456789+14:00", b"0001-01-01T00:00:00Z", b"soon",
        b"00-23c444623e05fc8bf39c087ff9f5dde3-ff15552cdf59b79a-01",
    ]
)  # fmt: skip
NAMES = st.sampled_from(
    [*(f"ce_{name}" for name in ("id", "source", "type", "specversion", "time", "sequence", "traceparent", "subject")),
     "CE_ID", "ce-type", "content-type", "Content-Type", "ce_dataschema", "baggage", "neuroweaver-unread"]
)  # fmt: skip
VALUES = st.sampled_from(
    [None, b"", b"{}", b"[]", b'{"job_id":"a"}', b'{"job_id":"a","job_id":"b"}', b'{"job_id":1e999}', b'{"job_id":"\\u0000"}',
     b'{"job_id":""}', b'{"job_id":"a","x":[[1e5]]}', '{"job_id":"é"}'.encode(), b'{"specversion":"1.0","type":"neuroweaver.JobRequested"}']
)  # fmt: skip


def said(read: Callable[..., object], *record: object) -> object:
    """What a way of reading gives, or raises, as it says it."""
    try:
        return read(*record)
    except (envelope.Unreadable, envelope.UnknownVersion) as error:
        return repr(error)


@given(
    st.sampled_from(sorted(EXAMPLES)),
    st.none() | VALUES,
    st.lists(st.tuples(NAMES, ODD), max_size=3),
    st.sets(st.integers(0, 11), max_size=2),
    TOPICS,
    st.sampled_from([EVENT_TYPES.keys(), {"StepRequested.v2"}, {"JobRequested", "JobCompleted"}, set[str]()]),
)
@example(
    name="JobRequested",
    odd_value=None,
    odd=[("CE_ID", b"7")],
    missing=set(),
    topic=REQUESTS.name,
    handled=EVENT_TYPES.keys(),
)
@example(name="JobCompleted", odd_value=None, odd=[], missing=set(), topic=REQUESTS.name, handled=set())
@example(
    name="JobCompleted", odd_value=None, odd=[("ce_type", b"neuroweaver.JobCompleted.v9")], missing=set(), topic=None,
    handled={"JobCompleted"},
)  # fmt: skip
def test_what_is_read_quickly_is_what_is_read_with_care(
    name: str,
    odd_value: bytes | None,
    odd: list[tuple[str, bytes | None]],
    missing: set[int],
    topic: str | None,
    handled: Collection[str],
) -> None:
    value, headers = encode(EXAMPLES[name])
    given = [header for number, header in enumerate(headers) if number not in missing] + odd
    record = (odd_value or value, given, handled, AT, topic)
    if (quick := said(envelope._plain, *record)) is not None:
        assert quick == said(envelope._with_care, *record)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_what_we_write_is_read_quickly(name: str) -> None:
    value, headers = encode(EXAMPLES[name])
    assert envelope._plain(value, headers, EVENT_TYPES.keys(), AT, None) == EXAMPLES[name]
    unhandled = envelope.Unhandled(EXAMPLES[name].id, EXAMPLES[name].source, f"neuroweaver.{name}")
    assert envelope._plain(value, headers, (), AT, None) == unhandled
