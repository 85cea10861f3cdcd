"""Reads and writes files of JSON lines, each line a value of one model."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

_Line = TypeVar("_Line", bound=BaseModel)


def read_lines(path: Path, model: type[_Line]) -> list[_Line]:
    """Read the lines of a file, in order."""
    with path.open(encoding="utf-8") as file:
        return [model.model_validate_json(line) for line in file]


def json_line(line: BaseModel) -> str:
    """Return a value as one line, without the fields that have their default."""
    return line.model_dump_json(exclude_defaults=True) + "\n"


def write_lines(path: Path, lines: Iterable[BaseModel]) -> None:
    """Write each value as one line, in UTF-8, without the fields that have their default."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(map(json_line, lines))
