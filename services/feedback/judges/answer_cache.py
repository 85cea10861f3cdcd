"""Caches the answers of a paid judge on disk as they arrive, so that a later run does not ask the same again."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from schemas.base import Frozen
from schemas.lines import Message
from services.chassis.storage.line_cache import CachedLine, LineCache

_FILE = "answers.jsonl"


class Answer(Frozen):
    """The answer of a chat endpoint."""

    text: str
    positions: tuple[dict[str, float], ...] = Field(
        default=(), description="For each token the likeliest ones with their log-probabilities, the chosen one first."
    )


class _Entry(CachedLine):
    answer: Answer


class AnswerCache:
    """Answers, keyed by model and question."""

    def __init__(self, root: Path | None, own: Path | None) -> None:
        """`root`: the checkpoints of all runs of the step; `own`: the folder that only this run writes to. None: for a judge whose
        caller keeps what it is told."""
        self._lines = None if root is None or own is None else LineCache(_Entry, root, own, _FILE)

    def recall(self, model: str, question: Sequence[Message]) -> Answer | None:
        """Return the answer that this or an earlier run received to the same question, if any."""
        found = self._lines.recall(_key(model, question)) if self._lines else None
        return None if found is None else found.answer

    def keep(self, model: str, question: Sequence[Message], answer: Answer) -> None:
        """Store the answer and write it to the file at once."""
        if self._lines:
            self._lines.keep(_Entry(key=_key(model, question), answer=answer))

    def close(self) -> None:
        """Close the file, which is kept for later runs."""
        if self._lines:
            self._lines.close()


def _key(model: str, question: Sequence[Message]) -> str:
    text = "\n".join([model, *(turn.model_dump_json() for turn in question)])
    return hashlib.sha256(text.encode()).hexdigest()
