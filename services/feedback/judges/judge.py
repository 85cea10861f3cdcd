"""What every judge promises, so that labelling and scoring need not know which one it is.

No judgement is None, never a number: arithmetic must not turn a failure into an opinion.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from schemas.lines import Message

Tick = Callable[[int, int], None]
"""Called with (done, of) as the work goes on; what it raises ends the work."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A text to be judged, and what it answers."""

    prompt: tuple[Message, ...]
    columns: Mapping[str, str]
    text: str
    """Never blank."""


@dataclass(frozen=True, slots=True)
class Orders:
    """How much better the first of two texts is, from -1 to 1, asked in both orders. None where no answer could be read."""

    forward: float | None
    """Asked with the first text shown first."""
    backward: float | None
    """Asked with the second text shown first; still positive where the first text is better."""

    @property
    def mean(self) -> float | None:
        """None where one order has no answer: there is no telling the text from its position then."""
        return None if self.forward is None or self.backward is None else (self.forward + self.backward) / 2


class Judge(Protocol):
    """Gives each text a number; higher is better. Numbers of different judges cannot be compared."""

    @property
    def name(self) -> str:
        """Kind and model, for reports."""

    def score(self, texts: Sequence[Judged], tick: Tick) -> list[float | None]:
        """One score per text, in order."""


@runtime_checkable
class ComparingJudge(Judge, Protocol):
    """A judge that is better at saying which of two texts is better than at giving numbers."""

    def compare(self, pairs: Sequence[tuple[Judged, Judged]], tick: Tick) -> list[Orders]:
        """One judgement per pair, in order; both texts of a pair answer the same prompt."""
