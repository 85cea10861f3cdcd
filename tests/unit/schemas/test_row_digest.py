"""Rows have one digest if they are the same row, however their file writes them, and others if a text in them differs."""

import hashlib
import json
from datetime import UTC, date, datetime

import pytest

from schemas.row_digest import row_digest


def test_the_digest_is_that_of_the_canonical_json() -> None:
    row = {"b": [1.0, 0.5, None, True], "a": "é\n"}
    assert row_digest(row) == hashlib.sha256('{"a":"é\\n","b":[1,0.5,null,true]}'.encode()).hexdigest()


@pytest.mark.parametrize(
    ("one", "other"),
    [('{"a": 1, "b": 2}', '{ "b":2,"a":1 }'), ('{"a": 1}', '{"a": 1.0}'), ('{"a": 1e2}', '{"a": 100}'), ('{"a": -0.0}', '{"a": 0}'),
     ('{"a": 0.1}', '{"a": 1.0e-1}'), ('{"a": "\\u00e9\\/"}', '{"a": "é/"}'), ('{"a": "\\ud83d\\ude00"}', '{"a": "😀"}')],
)  # fmt: skip
def test_the_form_in_which_a_file_writes_a_row_does_not_matter(one: str, other: str) -> None:
    assert row_digest(json.loads(one)) == row_digest(json.loads(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [({"a": "1"}, {"a": 1}), ({"a": None}, {}), ({"a": ""}, {"a": " "}), ({"a": "e\u0301"}, {"a": "\u00e9"}),
     ({"a": True}, {"a": 1}), ({"a": [1, 2]}, {"a": [2, 1]}), ({"a": 2**53}, {"a": 2**53 + 1}), ({"a": {}}, {"a": []})],
)  # fmt: skip
def test_rows_with_other_values_have_other_digests(one: dict[str, object], other: dict[str, object]) -> None:
    assert row_digest(one) != row_digest(other)


def test_values_that_json_does_not_have_are_texts() -> None:
    row = {"day": date(2026, 1, 2), "at": datetime(2026, 1, 2, 3, tzinfo=UTC), "raw": b"\x00\xff"}
    assert row_digest(row) == row_digest({"day": "2026-01-02", "at": "2026-01-02T03:00:00+00:00", "raw": "00ff"})
    assert len({row_digest({"a": value}) for value in (float("nan"), float("inf"), 1e308, "\ud800")}) == 4
