"""A data set that cannot be read is answered with file, line and remedy; one that can be read loses nothing."""

import json
from pathlib import Path

import pytest

from schemas.reasons import Reason
from schemas.recipes import DatasetSettings
from services.chassis.executor.child import UserFault
from services.trainer.data.raw import RawRow
from services.trainer.data.sources import read
from tests.allowed import IN_TESTS

ROW = {"prompt": "What is it?", "completion": "It is a test."}


def settings(path: Path, form: str, **split: object) -> DatasetSettings:
    return DatasetSettings.model_validate({"reference": str(path), "format": form, "split": {"test": None, **split}})


def rows(path: Path, form: str) -> list[RawRow]:
    found = read(settings(path, form), path.parent / "cache", IN_TESTS)
    assert isinstance(found, list)
    return found


def fault(path: Path, form: str, **split: object) -> Reason:
    with pytest.raises(UserFault) as raised:
        read(settings(path, form, **split), path.parent / "cache", IN_TESTS)
    return raised.value.reasons[0]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_json_lines_keep_their_line_numbers_past_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", f"\ufeff{json.dumps(ROW)}\n\n{json.dumps(ROW)}\n")
    assert [raw.place for raw in rows(path, "jsonl")] == ["rows.jsonl line 1", "rows.jsonl line 3"]
    assert rows(path, "jsonl")[0].values == ROW


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", f'{json.dumps(ROW)}\n{{"prompt": \n')
    reason = fault(path, "jsonl")
    assert (reason.field, reason.value) == ("dataset.reference", "rows.jsonl line 2")
    assert "not JSON" in reason.message


def test_an_array_where_lines_are_expected_names_the_format_for_arrays(tmp_path: Path) -> None:
    reason = fault(write(tmp_path / "rows.json", json.dumps([ROW])), "jsonl")
    assert "dataset.format json" in reason.remedy


def test_bytes_that_are_no_utf_8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "\xff"}\n')
    assert fault(path, "jsonl").value == "rows.jsonl line 1"


def test_a_json_array_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", json.dumps([ROW, ROW]))
    assert [raw.place for raw in rows(path, "json")] == ["rows.json element 1", "rows.json element 2"]


def test_an_object_where_an_array_is_expected_is_refused(tmp_path: Path) -> None:
    assert "array" in fault(write(tmp_path / "rows.json", json.dumps(ROW)), "json").message


def test_csv_with_quoted_line_breaks_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", 'prompt,completion\n"one,\ntwo",three\n')
    assert [dict(raw.values) for raw in rows(path, "csv")] == [{"prompt": "one,\ntwo", "completion": "three"}]


@pytest.mark.parametrize("line", ["only one field", "three,fields,here"])
def test_a_csv_line_that_does_not_fit_the_header_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "rows.csv", f"prompt,completion\na,b\n{line}\n")
    assert fault(path, "csv").value == "rows.csv line 3"


def test_a_quote_that_is_never_closed_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", 'prompt,completion\na,b\n"unclosed,quote\n')
    assert fault(path, "csv").value == "rows.csv after line 2"


def test_parquet_is_read(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist([ROW]), tmp_path / "rows.parquet")
    assert rows(tmp_path / "rows.parquet", "parquet") == [RawRow("rows.parquet row 1", ROW)]


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    assert "not a readable Parquet" in fault(write(tmp_path / "rows.parquet", "text"), "parquet").message


def test_a_folder_is_read_by_the_names_of_its_splits(tmp_path: Path) -> None:
    for name in ("learn", "held-out"):
        write(tmp_path / f"{name}.jsonl", json.dumps({**ROW, "from": name}) + "\n")
    found = read(settings(tmp_path, "jsonl", train="learn", test="held-out"), tmp_path / "cache", IN_TESTS)
    assert isinstance(found, dict)
    assert {split: raws[0].values["from"] for split, raws in found.items()} == {"train": "learn", "test": "held-out"}


def test_a_missing_split_tells_how_many_files_there_are_and_not_which(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", json.dumps(ROW))
    reason = fault(tmp_path, "jsonl", test="test")
    assert (reason.field, reason.value) == ("dataset.split.test", "'test'")
    assert "none of the 1 files" in reason.message
    assert "train" not in reason.message.replace(str(tmp_path), "")


def test_a_missing_data_set_is_refused(tmp_path: Path) -> None:
    reason = fault(tmp_path / "nowhere.jsonl", "jsonl")
    assert reason.field == "dataset.reference"
    assert "nowhere.jsonl" in (reason.value or "")
