"""Nulls that a table fills in are neither learnt as arguments of a call nor written as properties of a tool."""

from pathlib import Path
from typing import Any

import pytest

from schemas.lines import Message
from services.trainer.data.padding import calls_without_nulls, row_without_nulls, schema_without_nulls
from services.trainer.data.tables import parquet_rows


def test_a_row_of_a_table_loses_the_names_that_other_rows_have() -> None:
    row = {"a": None, "b": {"x": None, "y": [{"z": None, "w": 1}, None]}}
    assert row_without_nulls(row) == {"a": None, "b": {"y": [{"w": 1}, None]}}


def test_a_parquet_file_gives_each_object_its_own_names(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [{"tools": [{"name": name, "parameters": {"properties": {name: {"type": "string"}}}}]} for name in ("f", "g")]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert [row.values for row in parquet_rows(tmp_path / "rows.parquet")] == rows


@pytest.mark.parametrize(
    ("schema", "left"),
    [
        ({"properties": {"x": {"type": "string", "enum": None}, "y": None}}, {"properties": {"x": {"type": "string", "enum": None}}}),
        ({"description": None, "items": None, "required": ["x"]}, {"required": ["x"]}),
        ({"anyOf": [{"type": "null"}, {"type": None}]}, {"anyOf": [{"type": "null"}, {}]}),
        ({"default": None, "enum": ["a", None], "examples": [{"x": None}]}, {"default": None, "enum": ["a", None], "examples": [{"x": None}]}),
    ],
)  # fmt: skip
def test_a_schema_loses_nulls_but_those_that_are_data(schema: dict[str, Any], left: dict[str, Any]) -> None:
    """modelscope/ms-swift#6467: a tool with the parameter x was written with the null parameter y of another tool."""
    assert schema_without_nulls(schema) == left


def function(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


@pytest.mark.parametrize(
    ("tool", "left"),
    [
        (function("f", parameters={"type": "object", "properties": {"x": {}, "n": {}}}), {"x": 1, "n": None}),
        (function("f", parameters={"type": "object", "properties": {}}), {"x": 1}),
        (function("f", parameters={"$ref": "#"}), {"x": 1, "n": None, "y": None}),
        (function("g", parameters={"properties": {}}), {"x": 1, "n": None, "y": None}),
    ],
)
def test_a_call_loses_null_arguments_that_its_tool_does_not_have(tool: dict[str, Any], left: dict[str, Any]) -> None:
    """axolotl-ai-cloud/axolotl#2909: the arguments of all calls were those of each."""
    turn = Message(role="assistant", content="", tool_calls=(function("f", arguments={"x": 1, "n": None, "y": None}),))
    (found,) = calls_without_nulls([turn], [tool])
    assert found.tool_calls == (function("f", arguments=left),)
