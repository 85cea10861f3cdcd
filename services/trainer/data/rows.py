"""Why: the lines of the artifacts that the trainer writes and reads, typed, so that a file and its reader agree."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, Field

from schemas.base import Frozen

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Message(Frozen):
    """One turn of a chat."""

    role: str
    content: str


class Row(Frozen):
    """One line of a split in a `dataset` artifact."""

    id: str = Field(description="Unique within the data set: split and number.")
    messages: tuple[Message, ...] = Field(description="The chat up to the answer.")
    completion: str = Field(description="The wanted answer.")
    columns: dict[str, str] = Field(description="All columns of the source as text.")


class Candidates(Row):
    """One line of a `candidates` artifact; `completion` is the reference."""

    candidates: tuple[str, ...] = Field(description="Sampled answers.")


class Preference(Frozen):
    """One line of a `preferences` artifact, as far as training reads it."""

    id: str
    messages: tuple[Message, ...]
    chosen: str = Field(description="The better answer.")
    rejected: str = Field(description="The worse answer.")


class Prediction(Frozen):
    """One line of a `predictions` artifact."""

    id: str
    messages: tuple[Message, ...]
    columns: dict[str, str]
    reference: str = Field(description="The wanted answer.")
    greedy: str = Field(description="The most likely answer, token by token.")
    samples: tuple[str, ...] = Field(description="Sampled answers.")
    nll: float | None = Field(description="Mean negative log-likelihood of the reference's tokens; null if not measured.")


_Line = TypeVar("_Line", bound=BaseModel)


def write_lines(path: Path, lines: Iterable[BaseModel]) -> None:
    """JSON lines, UTF-8."""
    with path.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(line.model_dump_json() + "\n")


def read_lines(path: Path, model: type[_Line]) -> list[_Line]:
    """The lines of `path`; none where it does not exist."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return [model.model_validate_json(line) for line in file]


def split_file(folder: Path, split: Split) -> Path:
    """Where a `dataset` artifact in `folder` holds a split."""
    return folder / f"{split}.jsonl"
