"""Caches the answers of a paid judge on disk as they arrive, so that a later run does not ask the same again.

There is one file per run, below the step's checkpoints; a later run of the same step reads them all. A line that a kill
left incomplete is skipped.
"""

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from schemas.base import Frozen
from schemas.lines import Message

_FILE = "answers.jsonl"


class Answer(Frozen):
    """The answer of a chat endpoint."""

    text: str
    positions: tuple[dict[str, float], ...] = Field(
        default=(), description="For each token the likeliest ones with their log-probabilities, the chosen one first."
    )


class _Entry(Frozen):
    key: str
    answer: Answer


class AnswerCache:
    """Answers, keyed by model and question."""

    def __init__(self, root: Path, own: Path) -> None:
        """`root`: the checkpoints of all runs of the step; `own`: the folder that only this run writes to."""
        self._known: dict[str, Answer] = {}
        for file in sorted(root.glob(f"*/*/{_FILE}")):
            for line in file.read_bytes().splitlines():
                with contextlib.suppress(ValidationError):
                    entry = _Entry.model_validate_json(line)
                    self._known[entry.key] = entry.answer
        own.mkdir(parents=True, exist_ok=True)
        self._file = (own / _FILE).open("a", encoding="utf-8")

    def recall(self, model: str, question: Sequence[Message]) -> Answer | None:
        """Return the answer that this or an earlier run received to the same question, if any."""
        return self._known.get(_key(model, question))

    def keep(self, model: str, question: Sequence[Message], answer: Answer) -> None:
        """Store the answer and write it to the file at once."""
        entry = _Entry(key=_key(model, question), answer=answer)
        self._known[entry.key] = answer
        self._file.write(entry.model_dump_json() + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file, which is kept for later runs."""
        self._file.close()


def _key(model: str, question: Sequence[Message]) -> str:
    text = "\n".join([model, *(turn.model_dump_json() for turn in question)])
    return hashlib.sha256(text.encode()).hexdigest()
