"""A row is found by its digest in an index of any size, and one that is not there is not found."""

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.row_index import FILE, IndexedRow, rows_in, write_row_index

ROWS = st.tuples(
    st.sampled_from(["train", "validation", "test"]), st.sampled_from(["row", "train", "test"]), st.integers(1, 2**32 - 1)
)


def digest(text: object) -> str:
    return sha256(str(text).encode()).hexdigest()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.integers(0, 30), ROWS), max_size=40), other=st.integers(31, 99))
def test_every_row_is_found_as_often_as_it_is_there(
    tmp_path: Path, rows: list[tuple[int, tuple[str, str, int]]], other: int
) -> None:
    named = [(digest(text), IndexedRow(split, f"{part}-{number}")) for text, (split, part, number) in rows]
    write_row_index(named, tmp_path / FILE)
    for text in range(31):
        wanted = sorted(row for found, row in named if found == digest(text))
        assert sorted(rows_in(tmp_path / FILE, digest(text))) == wanted
    assert rows_in(tmp_path / FILE, digest(other)) == []


def test_rows_that_are_not_sorted_at_once_are_found_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schemas.row_index._SORTED_AT_ONCE", 3)
    write_row_index(((digest(number), IndexedRow("train", f"train-{number}")) for number in range(1, 30)), tmp_path / FILE)
    assert [rows_in(tmp_path / FILE, digest(number)) for number in range(1, 30)] == [
        [IndexedRow("train", f"train-{number}")] for number in range(1, 30)
    ]


def test_an_id_that_no_step_writes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="other"):
        write_row_index([(digest(1), IndexedRow("train", "other-1"))], tmp_path / FILE)
