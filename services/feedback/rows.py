"""Why: the lines of the artifacts that feedback reads and writes, typed, so that a file and its reader agree."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, Field

from schemas.base import Frozen


class Message(Frozen):
    """One turn of a chat."""

    role: str
    content: str


class Row(Frozen):
    """What candidates and predictions have in common: the row of the data set that they answer."""

    id: str
    messages: tuple[Message, ...] = Field(description="The chat up to the answer.")
    columns: dict[str, str] = Field(default_factory=dict, description="All columns of the source as text.")


class Candidates(Row):
    """One line of a `candidates` artifact."""

    candidates: tuple[str, ...] = Field(description="Sampled answers.")


class Prediction(Row):
    """One line of a `predictions` artifact, as far as judges read it."""

    greedy: str = Field(default="", description="The most likely answer.")
    samples: tuple[str, ...] = Field(default=(), description="Sampled answers.")


class Preference(Frozen):
    """One line of `preferences.jsonl`."""

    id: str = Field(description="The row that both answers answer.")
    messages: tuple[Message, ...] = Field(description="The chat up to the answer.")
    chosen: str = Field(description="The better answer.")
    rejected: str = Field(description="The worse answer.")
    chosen_score: float | None = Field(description="The judge's score of the chosen one.")
    rejected_score: float | None = Field(description="The judge's score of the rejected one.")


class Label(Frozen):
    """One line of `labels.jsonl`: a candidate and what became of it."""

    id: str = Field(description="The row that the candidate answers.")
    candidate: int = Field(description="Place among the row's candidates, from 0.")
    answer: str = Field(description="The candidate as it was sampled.")
    judged: str | None = Field(description="The text that was judged; null where none could be read.")
    score: float | None = Field(description="The judge's score; null without one. Judges that compare: mean preference.")
    verdict: str = Field(
        description="chosen, rejected, both (in different pairs), unpaired, duplicate, unread or unjudged."
    )


class Scores(Frozen):
    """One line of `scores.jsonl`."""

    id: str = Field(description="The row that was answered.")
    scores: tuple[float | None, ...] = Field(description="Score of each sample; null where none could be read or judged.")
    greedy: float | None = Field(description="Score of the most likely answer; null likewise.")


_Line = TypeVar("_Line", bound=BaseModel)


def read_lines(path: Path, model: type[_Line]) -> list[_Line]:
    """The lines of a JSON lines file."""
    with path.open(encoding="utf-8") as file:
        return [model.model_validate_json(line) for line in file]


def write_lines(path: Path, lines: Iterable[BaseModel]) -> None:
    """JSON lines, UTF-8."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(line.model_dump_json() + "\n" for line in lines)
