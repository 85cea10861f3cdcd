"""Defines the typed lines, and the files, of the artifacts that steps pass to each other: writers and readers share them."""

from typing import ClassVar, Literal

from pydantic import Field

from schemas.base import Frozen

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def split_file(split: Split) -> str:
    """Name of the file of a `dataset` artifact for a split; the file is absent if the split has no rows."""
    return f"{split}.jsonl"


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

    FILE: ClassVar[str] = "candidates.jsonl"

    candidates: tuple[str, ...] = Field(description="Sampled answers.")


class Prediction(Frozen):
    """One line of a `predictions` artifact."""

    FILE: ClassVar[str] = "predictions.jsonl"

    id: str = Field(description="The row that was answered.")
    messages: tuple[Message, ...] = Field(description="The chat up to the answer.")
    columns: dict[str, str] = Field(description="All columns of the source as text.")
    reference: str = Field(description="The wanted answer.")
    greedy: str = Field(description="The most likely answer, token by token.")
    samples: tuple[str, ...] = Field(description="Sampled answers.")
    nll: float | None = Field(description="Mean negative log-likelihood of the reference's tokens; null if not measured.")


class Preference(Frozen):
    """One line of a `preferences` artifact: two answers to one prompt."""

    FILE: ClassVar[str] = "preferences.jsonl"

    id: str = Field(description="The row that both answers answer.")
    messages: tuple[Message, ...] = Field(description="The chat up to the answer.")
    chosen: str = Field(description="The better answer.")
    rejected: str = Field(description="The worse answer.")
    chosen_score: float | None = Field(default=None, description="The judge's score of the chosen one.")
    rejected_score: float | None = Field(default=None, description="The judge's score of the rejected one.")


class Label(Frozen):
    """One line of the labels in a `preferences` artifact: a candidate and what became of it."""

    FILE: ClassVar[str] = "labels.jsonl"

    id: str = Field(description="The row that the candidate answers.")
    candidate: int = Field(description="Place among the row's candidates, from 0.")
    answer: str = Field(description="The candidate as it was sampled.")
    judged: str | None = Field(description="The text that was judged; null where none could be read.")
    score: float | None = Field(description="The judge's score; null without one. Judges that compare: mean preference.")
    verdict: str = Field(
        description="chosen, rejected, both (in different pairs), unpaired, duplicate, unread or unjudged."
    )


class RowScores(Frozen):
    """One line of a `scores` artifact."""

    FILE: ClassVar[str] = "scores.jsonl"

    id: str = Field(description="The row that was answered.")
    scores: tuple[float | None, ...] = Field(description="Score of each sample; null where none could be read or judged.")
    greedy: float | None = Field(description="Score of the most likely answer; null likewise.")
