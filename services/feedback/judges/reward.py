"""Judges with a reward model in this process: by its score of the chat that ends with the answer.

The difference of two scores is the logarithm of the odds, in nats, that the one answer is better than the other.

It imports torch; import it in a child process only.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import TemplateError
from pydantic import Field, ValidationError

from schemas.base import Frozen
from services.feedback.judges.judge import TextToJudge, Tick
from services.language_models.loading import load_tokenizer
from services.language_models.precision import compute_dtype, device
from services.language_models.scoring import (
    Unscorable,
    load_reward_model,
    padding_beside,
    refuse_writer,
    scored_tokens,
    scores_of,
)

__all__ = ("RewardJudge", "Unscorable", "record_of")

_RECORD = "training.json"


class RewardRecord(Frozen):
    """What the training of a reward model recorded beside it."""

    base_model: str = Field(description="Reference of the base model.")
    base_model_sha256: str = Field(description="Digest of the base model's files.")


def record_of(folder: Path) -> RewardRecord:
    """Read the record of the reward model in `folder`. Raises Unscorable if it is none."""
    refuse_writer(folder)
    try:
        found = json.loads((folder / _RECORD).read_bytes())
        return RewardRecord.model_validate({name: found[name] for name in RewardRecord.model_fields})
    except (OSError, ValueError, KeyError, TypeError, RecursionError, ValidationError) as error:
        raise Unscorable(f"it has no {_RECORD} that names its base model") from error


class RewardJudge:
    """Scores whole chats, in bf16 if the hardware supports it; the head computes in fp32."""

    def __init__(self, name: str, base: Path, adapter: Path, batch_size: int) -> None:
        """Load the model. Raises Unscorable if it does not fit its base model."""
        where = device()
        self.name, self._batch_size = name, batch_size
        try:
            self._tokenizer = load_tokenizer(adapter)
            self._model = load_reward_model(base, adapter, compute_dtype("auto", where), where)
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            raise Unscorable(f"it cannot be loaded ({type(error).__name__})") from error
        self._longest = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        self._control = [token.content for token in self._tokenizer.added_tokens_decoder.values() if token.special]

    def score(self, texts: Sequence[TextToJudge], tick: Tick) -> list[float | None]:
        """Score the answers to their prompts. None for one that the template refuses, that is longer than the model reads, or
        that spells a control token, with which it could end its turn and praise itself."""
        rows = [self._tokens(text) for text in texts]
        fitting = [place for place, row in enumerate(rows) if row and len(row) <= (self._longest or len(row))]
        fitting.sort(key=lambda place: (len(rows[place]), place))
        found: list[float | None] = [None] * len(texts)
        for start in range(0, len(fitting), self._batch_size):
            tick(start, len(fitting))
            batch = fitting[start : start + self._batch_size]
            read = [rows[place] for place in batch]
            for place, score in zip(batch, scores_of(self._model, read, padding_beside(read)), strict=True):
                found[place] = score
        tick(len(fitting), len(fitting))
        return found

    def _tokens(self, text: TextToJudge) -> list[int]:
        """Return the tokens of a chat; none if it cannot be scored."""
        if any(token in text.text for token in self._control):
            return []
        try:
            return scored_tokens(self._tokenizer, [(text.prompt, text.text, ())])[0]
        except TemplateError:
            return []
