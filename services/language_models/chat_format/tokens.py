"""A chat as token ids, with a mask of those that are learnt."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Tokens:
    """A whole chat as token ids, and which of them are supervised; several answers may be."""

    ids: Sequence[int]
    learnt: Sequence[bool]
    """As many as `ids`: true for the tokens of answers that are learnt, with the token that ends each."""
    unlearnt: int = 0
    """Answers of the chat that are not learnt, by choice or because the history has them in another form than served."""

    @classmethod
    def of(cls, prompt: Sequence[int], completion: Sequence[int]) -> "Tokens":
        """A chat of which one answer, at its end, is learnt."""
        return cls([*prompt, *completion], [False] * len(prompt) + [True] * len(completion))

    @property
    def prompt(self) -> list[int]:
        """The tokens before the first supervised one."""
        first = next((place for place, learnt in enumerate(self.learnt) if learnt), len(self.ids))
        return list(self.ids[:first])

    @property
    def before_last_answer(self) -> int:
        """The number of tokens before the last learnt answer."""
        last = max((place for place, learnt in enumerate(self.learnt) if learnt), default=-1)
        return next((place + 1 for place in range(last, -1, -1) if not self.learnt[place]), 0)

    @property
    def completion(self) -> list[int]:
        """The supervised tokens of all learnt answers."""
        return [token for token, learnt in zip(self.ids, self.learnt, strict=True) if learnt]

    @property
    def supervised(self) -> int:
        """The number of supervised tokens."""
        return sum(self.learnt)

    @property
    def answers(self) -> int:
        """The number of learnt answers; the header of the next one, which is not learnt, is between two."""
        return sum(learnt and not before for before, learnt in zip([False, *self.learnt], self.learnt, strict=False))

    def cut(self, length: int) -> "Tokens":
        """The first `length` tokens; answers of which none is left count as not learnt."""
        if length >= len(self):
            return self
        left = Tokens(self.ids[:length], self.learnt[:length])
        return replace(left, unlearnt=self.unlearnt + self.answers - left.answers)

    def __len__(self) -> int:
        return len(self.ids)


def answers_of(rows: Iterable[Tokens]) -> dict[str, float]:
    """Return the metrics `answers_learnt` and `answers_not_learnt` of rows."""
    counts = [(row.answers, row.unlearnt) for row in rows]
    return {
        "answers_learnt": float(sum(learnt for learnt, _ in counts)),
        "answers_not_learnt": float(sum(unlearnt for _, unlearnt in counts)),
    }
