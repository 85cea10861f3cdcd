"""Defines the typed lines, and the files, of the artifacts that steps pass to each other: writers and readers share them."""

from collections.abc import Generator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, JsonValue

from schemas.base import Frozen

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


CURVE_FILE = "curve.jsonl"
"""The file of an `adapter` artifact with the metrics of each optimiser step, one JSON object per line."""


def split_file(split: Split) -> str:
    """Return the name of the file of a `dataset` artifact for a split; the file is absent if the split has no rows."""
    return f"{split}.jsonl"


def row_digests_file(split: Split) -> str:
    """Return the name of the file of a `dataset` artifact with the rows of a split that are learnt from or held out: on each line the
    digest of the row as it was given (`schemas.row_digest`), a space, and the row's id. The file is absent if the split has no rows."""
    return f"{split}.rows.txt"


def row_digests(path: Path) -> Generator[tuple[str, str], None, None]:
    """Yield the digest and the id of each row of such a file."""
    with path.open(encoding="ascii") as file:
        for line in file:
            digest, _, row_id = line.rstrip("\n").partition(" ")
            yield digest, row_id


def held_out_pairs_file(split: Split) -> str:
    """Return the name of the file of a `preferences` artifact with the pairs of a split that is not trained on; the file is
    absent if the split has none."""
    return f"preferences-{split}.jsonl"


class Message(Frozen):
    """One turn of a chat."""

    role: str
    content: str
    tool_calls: tuple[dict[str, JsonValue], ...] = Field(
        default=(), description="Tool calls of an assistant's turn, in OpenAI's form, with the arguments as an object."
    )
    reasoning: str | None = Field(default=None, description="What an assistant thought before its answer.")
    weight: Literal[0, 1] = Field(default=1, description="0: an assistant's turn that is context and is not learnt.")
    name: str | None = Field(default=None, description="The function whose result a tool's turn is.")
    tool_call_id: str | None = Field(default=None, description="The id of the call whose result a tool's turn is.")


class Row(Frozen):
    """One line of a split in a `dataset` artifact."""

    id: str = Field(description="Split and number of the row; unique within the data set.")
    messages: tuple[Message, ...] = Field(description="The chat up to its last answer.")
    completion: str = Field(
        description="The text of the last answer, which is the reference answer; empty if there is none."
    )
    tool_calls: tuple[dict[str, JsonValue], ...] = Field(default=(), description="Tool calls of the last answer.")
    reasoning: str | None = Field(default=None, description="What the assistant thought before the last answer.")
    weight: Literal[0, 1] = Field(default=1, description="0: the last answer is not learnt.")
    tools: tuple[dict[str, JsonValue], ...] = Field(default=(), description="Tools that the assistant may call.")
    columns: dict[str, str] = Field(description="All columns of the source as text.")

    @property
    def answered(self) -> bool:
        """Whether the row has a last answer; one that has only a prompt is for trainings on sampled answers."""
        return bool(self.completion or self.tool_calls)

    @property
    def answer(self) -> Message:
        """The last answer as a turn of the chat."""
        return Message(
            role="assistant",
            content=self.completion,
            tool_calls=self.tool_calls,
            reasoning=self.reasoning,
            weight=self.weight,
        )


class Candidates(Row):
    """One line of a `candidates` artifact; `completion` is the reference."""

    FILE: ClassVar[str] = "candidates.jsonl"

    candidates: tuple[str, ...] = Field(description="Sampled answers.")
    cut: tuple[bool, ...] = Field(
        default=(),
        description="For each candidate whether it reached max_new_tokens, so that it has no end; empty: none did.",
    )


class Prediction(Frozen):
    """One line of a `predictions` artifact."""

    FILE: ClassVar[str] = "predictions.jsonl"

    id: str = Field(description="The row that was answered.")
    messages: tuple[Message, ...] = Field(description="The chat up to the answer.")
    columns: dict[str, str] = Field(description="All columns of the source as text.")
    reference: str = Field(description="The reference answer.")
    greedy: str = Field(description="The most likely answer, token by token.")
    samples: tuple[str, ...] = Field(description="Sampled answers.")
    nll: float | None = Field(description="Mean negative log-likelihood of the reference's tokens; null if not measured.")


class TaskSample(Frozen):
    """One line of the samples in a `predictions` artifact of the harness's tasks: a row as a person reads it."""

    FILE: ClassVar[str] = "harness-samples.jsonl"

    task: str = Field(description="Name of the task.")
    row: int = Field(description="Number of the row in the task, from 0.")
    prompt: str = Field(description="The prompt as it was written, with its examples.")
    expected: str = Field(description="The right answer.")
    answers: tuple[str, ...] = Field(description="What the model wrote, or the choices that it scored.")
    scores: tuple[float | None, ...] = Field(
        default=(),
        description="Log-probability of each choice, null for one that is not finite; empty if the model wrote the answers.",
    )
    read: str | None = Field(default=None, description="What the task read of the first answer; null if all of it.")


class AnswerPair(Frozen):
    """One line of the pairs that a step of kind compare judges: the answers of two models to one prompt."""

    FILE: ClassVar[str] = "pairs.jsonl"

    id: str = Field(description="Id of the first answer's response, which its caller got.")
    messages: tuple[Message, ...] = Field(description="The chat up to the answer.")
    first: str = Field(description="The answer of the first model.")
    second: str = Field(description="The answer of the second.")
    first_version: str = Field(description="The first model, `name@version`.")
    second_version: str = Field(description="The second.")


class ComparedPair(Frozen):
    """One line of a `comparisons` artifact. It has no text."""

    FILE: ClassVar[str] = "comparisons.jsonl"

    id: str = Field(description="The pair.")
    verdict: str = Field(description="first, second, tie, or none without a usable judgement.")
    difference: float | None = Field(description="How much better the first answer is; null without a usable judgement.")
    consistent: bool | None = Field(
        description="Whether both orders gave the same verdict; null if the judge was not asked in both."
    )


class Preference(Frozen):
    """One line of a `preferences` artifact: two answers to one prompt."""

    FILE: ClassVar[str] = "preferences.jsonl"

    id: str = Field(description="The row that both answers answer.")
    messages: tuple[Message, ...] = Field(description="The chat up to the answer.")
    chosen: str = Field(description="The better answer.")
    rejected: str = Field(description="The worse answer.")
    chosen_score: float | None = Field(default=None, description="The judge's score of the chosen one.")
    rejected_score: float | None = Field(default=None, description="The judge's score of the rejected one.")
    tools: tuple[dict[str, JsonValue], ...] = Field(default=(), description="Tools that the assistant may call.")


class Judged(Frozen):
    """One line of the judged answers in a `preferences` artifact: an answer that is wanted or not (KTO's form)."""

    FILE: ClassVar[str] = "judged.jsonl"

    id: str = Field(description="The row of the answer; both answers of a pair have the id of the pair.")
    messages: tuple[Message, ...] = Field(description="The chat up to the answer.")
    completion: str = Field(description="The answer.")
    label: bool = Field(description="Whether the answer is wanted.")
    tools: tuple[dict[str, JsonValue], ...] = Field(default=(), description="Tools that the assistant may call.")


class Label(Frozen):
    """One line of the labels in a `preferences` artifact: a candidate and how it was used."""

    FILE: ClassVar[str] = "labels.jsonl"

    id: str = Field(description="The row that the candidate answers.")
    candidate: int = Field(description="Index among the row's candidates, from 0.")
    answer: str = Field(description="The candidate as it was sampled.")
    judged: str | None = Field(description="The text that was judged; null if none could be read.")
    score: float | None = Field(
        description="The judge's score, or the mean preference of a judge that compares; null without a judgement."
    )
    verdict: str = Field(
        description="chosen, rejected, both (in different pairs), unpaired, duplicate, cut, unread or unjudged."
    )


class RowScores(Frozen):
    """One line of a `scores` artifact."""

    FILE: ClassVar[str] = "scores.jsonl"

    id: str = Field(description="The row that was answered.")
    scores: tuple[float | None, ...] = Field(description="Score of each sample; null if it could not be read or judged.")
    greedy: float | None = Field(description="Score of the most likely answer; null if it could not be read or judged.")
