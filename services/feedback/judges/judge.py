"""Defines the interface of judges, so that labelling and scoring do not depend on a particular one.

A missing judgement is None, never a number, so that arithmetic cannot turn a failure into a judgement.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from schemas.lines import Message

Tick = Callable[[int, int], None]
"""Called with (done, total) as the work proceeds; an exception from it ends the work."""


@dataclass(frozen=True, slots=True)
class TextToJudge:
    """A text to be judged, with the prompt that it answers."""

    prompt: tuple[Message, ...]
    columns: Mapping[str, str]
    text: str
    """The text, which is never blank."""


@dataclass(frozen=True, slots=True)
class Orders:
    """How much better the first of two texts is, from -1 to 1, asked in both orders. None if no answer could be read."""

    forward: float | None
    """The judgement with the first text shown first."""
    backward: float | None
    """The judgement with the second text shown first; still positive if the first text is better."""

    @property
    def mean(self) -> float | None:
        """Mean of both orders; None if one has no answer, since quality and position cannot be separated then."""
        return None if self.forward is None or self.backward is None else (self.forward + self.backward) / 2


class Judge(Protocol):
    """Gives each text a number; higher is better. Numbers of different judges are not comparable."""

    @property
    def name(self) -> str:
        """Kind and model, for reports."""

    def score(self, texts: Sequence[TextToJudge], tick: Tick) -> list[float | None]:
        """Return one score per text, in order."""


@runtime_checkable
class ComparingJudge(Judge, Protocol):
    """A judge that compares two texts more reliably than it scores one."""

    def compare(self, pairs: Sequence[tuple[TextToJudge, TextToJudge]], tick: Tick) -> list[Orders]:
        """Return one judgement per pair, in order; both texts of a pair answer the same prompt."""
