"""Answers of a paid judge are kept as they come, so that a run that was killed or stopped does not ask again.

One file per run, below the step's checkpoints; a later run of the same step reads them all. A line that was torn by a kill
is passed over.
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
    """What a chat endpoint answered."""

    text: str
    positions: tuple[dict[str, float], ...] = Field(
        default=(), description="For each token the likeliest ones with their log-probabilities, the chosen one first."
    )


class _Entry(Frozen):
    key: str
    answer: Answer


class AnswerCache:
    """Answers by question."""

    def __init__(self, root: Path, own: Path) -> None:
        """`root`: checkpoints of the step, of every run; `own`: the folder that this run alone writes to."""
        self._known: dict[str, Answer] = {}
        for file in sorted(root.glob(f"*/*/{_FILE}")):
            for line in file.read_bytes().splitlines():
                with contextlib.suppress(ValidationError):
                    entry = _Entry.model_validate_json(line)
                    self._known[entry.key] = entry.answer
        own.mkdir(parents=True, exist_ok=True)
        self._file = (own / _FILE).open("a", encoding="utf-8")

    def recall(self, model: str, question: Sequence[Message]) -> Answer | None:
        """The answer of an earlier run, or an earlier answer to the same question."""
        return self._known.get(_key(model, question))

    def keep(self, model: str, question: Sequence[Message], answer: Answer) -> None:
        """Write it down at once."""
        entry = _Entry(key=_key(model, question), answer=answer)
        self._known[entry.key] = answer
        self._file.write(entry.model_dump_json() + "\n")
        self._file.flush()

    def close(self) -> None:
        """The file stays for later runs."""
        self._file.close()


def _key(model: str, question: Sequence[Message]) -> str:
    text = "\n".join([model, *(turn.model_dump_json() for turn in question)])
    return hashlib.sha256(text.encode()).hexdigest()
