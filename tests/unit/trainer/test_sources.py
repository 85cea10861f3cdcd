"""A data set that cannot be read is answered with file, line and remedy; one that can be read loses nothing."""

import json
from pathlib import Path

import pytest

from schemas.reasons import Reason
from schemas.recipes.dataset import DatasetSettings
from services.chassis.executor.child import UserFault
from services.trainer.data import files, json_array
from services.trainer.data.raw import RawRow
from services.trainer.data.sources import read
from tests.allowed import IN_TESTS

ROW = {"prompt": "What is it?", "completion": "It is a test."}


def settings(path: Path, form: str, **split: object) -> DatasetSettings:
    return DatasetSettings.model_validate({"reference": str(path), "format": form, "split": {"test": None, **split}})


def rows(path: Path, form: str) -> list[RawRow]:
    found = read(settings(path, form), path.parent / "cache", IN_TESTS)
    assert not isinstance(found, dict)
    return list(found)


def read_all(given: DatasetSettings, cache: Path) -> None:
    found = read(given, cache, IN_TESTS)
    for one in found.values() if isinstance(found, dict) else [found]:
        list(one)


def fault(path: Path, form: str, **split: object) -> Reason:
    with pytest.raises(UserFault) as raised:
        read_all(settings(path, form, **split), path.parent / "cache")
    return raised.value.reasons[0]


def bad(path: Path, form: str) -> tuple[str, str]:
    """The place and the cause of the one row that cannot be read."""
    (row,) = [raw for raw in rows(path, form) if raw.fault is not None]
    assert row.fault is not None
    return row.place, row.fault.message


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_json_lines_keep_their_line_numbers_past_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", f"\ufeff{json.dumps(ROW)}\n\n{json.dumps(ROW)}\n")
    assert [raw.place for raw in rows(path, "jsonl")] == ["rows.jsonl line 1", "rows.jsonl line 3"]
    assert rows(path, "jsonl")[0].values == ROW


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", f'{json.dumps(ROW)}\n{{"prompt": \n')
    place, cause = bad(path, "jsonl")
    assert place == "rows.jsonl line 2"
    assert "not JSON" in cause


def test_an_array_where_lines_are_expected_is_read_as_one(tmp_path: Path) -> None:
    assert rows(write(tmp_path / "rows.json", f" {json.dumps([ROW], indent=1)}"), "jsonl")[0].values == ROW


def test_bytes_that_are_no_utf_8_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "\xff"}\n')
    assert bad(path, "jsonl") == ("rows.jsonl line 1", "this is not JSON: byte 12 is not UTF-8")


def test_a_json_array_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", json.dumps([ROW, ROW]))
    assert [raw.place for raw in rows(path, "json")] == ["rows.json element 1", "rows.json element 2"]


def test_an_object_where_an_array_is_expected_is_refused(tmp_path: Path) -> None:
    assert "array" in fault(write(tmp_path / "rows.json", json.dumps(ROW)), "json").message


def test_csv_with_quoted_line_breaks_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", 'prompt,completion\n"one,\ntwo",three\n')
    assert [dict(raw.values) for raw in rows(path, "csv")] == [{"prompt": "one,\ntwo", "completion": "three"}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("semicolons.csv", '"prompt";"completion";"a, b"\nx, y;z;\n'),
        ("tabs.tsv", "prompt\tcompletion\ta, b, c, d\nx, y\tz\t\n"),
        ("excel.csv", "sep=;\nprompt;completion\nx, y;z\n"),
        ("spaces.csv", 'prompt , completion\n"x, y",z\n'),
    ],
)
def test_the_delimiter_is_what_divides_the_header(tmp_path: Path, name: str, text: str) -> None:
    (row,) = rows(write(tmp_path / name, f"\ufeff{text}"), "csv")
    assert (row.values["prompt"], row.values["completion"]) == ("x, y", "z")
    assert row.place == f"{name} line {text.count(chr(10))}"


def test_files_that_were_joined_have_a_byte_order_mark_before_each_part(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", f"\ufeff\ufeff{json.dumps(ROW)}\n\ufeff{json.dumps(ROW)}\n\ufeff\n")
    assert [raw.values for raw in rows(path, "jsonl")] == [ROW, ROW]


@pytest.mark.parametrize("line", ["only one field", "three,fields,here"])
def test_a_csv_line_that_does_not_fit_the_header_is_named(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "rows.csv", f"prompt,completion\na,b\n{line}\n")
    assert bad(path, "csv")[0] == "rows.csv line 3"


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
    assert {split: next(iter(raws)).values["from"] for split, raws in found.items()} == {
        "train": "learn",
        "test": "held-out",
    }


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


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("form", ["jsonl", "json", "csv"])
def test_every_unicode_encoding_that_a_mark_names_is_read(tmp_path: Path, form: str, encoding: str) -> None:
    texts = {
        "jsonl": '{"prompt": "é", "completion": "ok"}\n',
        "json": '[{"prompt": "é", "completion": "ok"}]',
        "csv": "prompt,completion\r\né,ok\r\n",
    }
    path = tmp_path / f"rows.{form}"
    path.write_bytes(texts[form].encode(encoding))
    assert [dict(raw.values) for raw in rows(path, form)] == [{"prompt": "é", "completion": "ok"}]


@pytest.mark.parametrize("sign", [";", "\t", "|"])
def test_csv_with_another_delimiter_is_read(tmp_path: Path, sign: str) -> None:
    path = write(tmp_path / "rows.csv", f'prompt{sign}completion\n"a{sign} b"{sign}c, d\n')
    assert [dict(raw.values) for raw in rows(path, "csv")] == [{"prompt": f"a{sign} b", "completion": "c, d"}]


def test_a_column_name_that_occurs_twice_is_refused_by_its_place(tmp_path: Path) -> None:
    reason = fault(write(tmp_path / "rows.csv", "prompt,secret,secret\na,b,c\n"), "csv")
    assert "more than once in the header: column 3" in reason.message
    assert "secret" not in str(reason)


def test_a_csv_in_windows_1252_is_refused_by_its_cause(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes("prompt,completion\nhi,café\n".encode("cp1252"))
    reason = fault(tmp_path / "rows.csv", "csv")
    assert "Windows-1252" in reason.message
    assert "UTF-8" in reason.remedy


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ('{"prompt": "a", "prompt": "b"}', "more than once"),
        ('{"prompt": {"x": 1, "x": 1}}', "more than once"),
        ('{"prompt": ' + "[" * 100_000 + "]" * 100_000 + "}", "not readable JSON (RecursionError)"),
        ('{"prompt": ' + "1" * 5000 + "}", "not readable JSON (ValueError)"),
        ('["a", "b"]', "this is a list"),
        ("null", "this is null"),
        ('{"prompt": "a"} {"prompt": "b"}', "extra data"),
    ],
)
def test_a_bad_line_is_named_by_its_cause_and_the_others_are_read(tmp_path: Path, line: str, cause: str) -> None:
    path = write(tmp_path / "rows.jsonl", f"{json.dumps(ROW)}\n{line}\n{json.dumps(ROW)}\n")
    place, message = bad(path, "jsonl")
    assert place == "rows.jsonl line 2"
    assert cause in message
    assert len(rows(path, "jsonl")) == 3


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ROW_BYTES", 1000)
    path = write(tmp_path / "rows.jsonl", f'{{"prompt": "{"x" * 5000}"}}\n{json.dumps(ROW)}\n')
    assert "longer than" in bad(path, "jsonl")[1]
    assert rows(path, "jsonl")[1].place == "rows.jsonl line 2"


def test_an_array_is_read_in_pieces_wherever_they_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[dict[str, object]] = [
        {"prompt": f'{number} \\" é }}] ,', "n": [number, {"x": None}]} for number in range(20)
    ]
    path = write(tmp_path / "rows.json", json.dumps(written, indent=1, ensure_ascii=False) + "\n")
    for size in (1, 2, 7, 64):
        monkeypatch.setattr(json_array, "CHUNK", size)
        assert [raw.values for raw in rows(path, "json")] == written


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"a": 1} {"b": 2}]', "expecting ',' delimiter"),
        ('[{"a": 1},]', "expecting value"),
        ('[{"a": 1}, {"b":', "element 2"),
        ('[{"a": 1}', "ends within the array"),
        ('[{"a": 1}] x', "follows the array"),
    ],
)
def test_an_array_that_is_not_well_formed_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in str(fault(write(tmp_path / "rows.json", text), "json"))


def test_an_element_that_is_no_row_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", f'[{json.dumps(ROW)}, 5, {{"a": 1, "a": 2}}, {json.dumps(ROW)}]')
    found = rows(path, "json")
    assert [raw.place for raw in found if raw.fault] == ["rows.json element 2", "rows.json element 3"]


@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.json", "train.parquet"])
def test_files_are_read_by_their_names_where_no_format_is_asked_for(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist([ROW]), tmp_path / name)
    else:
        sign = "\t" if name.endswith("tsv") else ","
        text = json.dumps([ROW]) if name.endswith("json") else f"{sign.join(ROW)}\n{sign.join(ROW.values())}\n"
        write(tmp_path / name, text)
    assert [dict(raw.values) for raw in rows(tmp_path / name, "jsonl")] == [ROW]
    found = read(settings(tmp_path, "jsonl"), tmp_path / "cache", IN_TESTS)
    assert isinstance(found, dict)
    assert [dict(raw.values) for raw in found["train"]] == [ROW]
