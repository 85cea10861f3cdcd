"""What a person asks for is understood in one way, or refused in words that say what to write."""

from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from services.audit.selection import InvalidSelection, InvalidTime, Selection, is_of_job, moment
from services.cli.audit.arguments import InvalidArgument, digest, record_id, root


def record(key: bytes | None, value: bytes | None, *headers: tuple[str, bytes]) -> Any:
    return ConsumerRecord("t", 0, 0, 0, 1, key, value, None, 0, 0, headers)


@pytest.mark.parametrize("text", ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00", "20260131T120000Z"])
def test_a_time_with_its_zone_is_one_moment(text: str) -> None:
    assert moment(text, "--from") == datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("yesterday", "'yesterday' is not a time; write it as"),
        ("", "'' is not a time"),
        ("2026-01-31", "has no time zone; write 2026-01-31T00:00:00Z"),
        ("2026-01-31T12:00:00", "write 2026-01-31T12:00:00Z"),
        ("0001-01-01T00:00:00+23:00", "outside the years 1 to 9999"),
    ],
)
def test_a_time_that_is_none_is_refused_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(InvalidTime) as refused:
        moment(text, "TIME")
    assert says in str(refused.value)
    assert str(refused.value).startswith("TIME ")


@pytest.mark.parametrize("option", [{"partition": 0}, {"first": 1}, {"last": 1}])
def test_offsets_and_partitions_need_one_topic(option: dict[str, Any]) -> None:
    with pytest.raises(InvalidSelection, match="need exactly one --topic"):
        Selection(topics=("a", "b"), **option)
    Selection(topics=("a",), **option)


def test_a_window_in_which_nothing_can_lie_is_refused() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(InvalidSelection, match="not later than --from"):
        Selection(begin=now, end=now)
    with pytest.raises(InvalidSelection, match="not higher than --from-offset 5"):
        Selection(topics=("a",), first=5, last=5)


def test_a_record_is_of_a_job_by_its_key_its_correlation_or_its_data_and_not_by_a_mention() -> None:
    assert is_of_job(record(b"job-1", b"garbage"), "job-1")
    assert is_of_job(record(None, b'{"job_id": "job-1"}'), "job-1")
    assert is_of_job(record(b"model", b"{}", ("ce_correlationid", b"job-1")), "job-1")
    assert not is_of_job(record(b"job-2", b'{"job_id": "job-2", "note": "job-1"}', ("ce_causationid", b"job-1")), "job-1")
    assert not is_of_job(record(None, None), "job-1")


def test_records_roots_and_digests_are_named_in_one_way() -> None:
    hexes = "AB" * 32
    assert record_id("neuroweaver.jobs:2:17") == ("neuroweaver.jobs", 2, 17)
    assert root(f"t:0={hexes}") == (("t", 0), hexes.lower())
    assert digest(hexes) == hexes.lower()
    for wrong in ("t:0", "t:0:x", ":0:1", "t:-1:1", "t:0:1:2"):
        with pytest.raises(InvalidArgument, match="write it as neuroweaver"):
            record_id(wrong)
    for wrong in ("t:0", "t=00", f"t:0={hexes}0", f"t:٣={hexes}"):
        with pytest.raises(InvalidArgument, match="digits that the export printed"):
            root(wrong)
    with pytest.raises(InvalidArgument, match="64 hex digits"):
        digest("abc")
