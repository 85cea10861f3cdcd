"""Represents the comparison of two candidates, whether the judge compared them or scored each alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

from services.feedback.judges.judge import Orders


class Verdict(StrEnum):
    """The result of a comparison."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"
    NONE = "none"
    """There is no usable judgement; this never counts as a tie."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two candidates of one prompt, by their indexes in `CandidateGroup.candidates`; `first` is the smaller index."""

    first: int
    second: int
    difference: float | None
    """How much better the first candidate is; None without a usable judgement."""
    orders: Orders | None = None
    """The judgements in both orders, if the judge was asked in both."""

    @property
    def consistent(self) -> bool | None:
        """Whether both orders give the same verdict; None if one is missing or the texts were scored individually."""
        if self.orders is None or self.orders.forward is None or self.orders.backward is None:
            return None
        return sign(self.orders.forward) == sign(self.orders.backward)

    def verdict(self, margin: float) -> Verdict:
        """The verdict: a difference below `margin`, no difference, and verdicts that change with the order are ties."""
        if self.difference is None:
            return Verdict.NONE
        if self.consistent is False or abs(self.difference) < margin or self.difference == 0:
            return Verdict.TIE
        return Verdict.FIRST if self.difference > 0 else Verdict.SECOND


def every_two(candidates: int) -> list[tuple[int, int]]:
    """All pairs of indexes of this many candidates."""
    return list(combinations(range(candidates), 2))


def from_scores(scores: Sequence[float | None]) -> list[Comparison]:
    """All pairs of individually scored candidates; the difference is that of their scores."""
    found = []
    for first, second in every_two(len(scores)):
        one, other = scores[first], scores[second]
        found.append(Comparison(first, second, None if one is None or other is None else one - other))
    return found


def from_orders(candidates: int, orders: Sequence[Orders]) -> list[Comparison]:
    """All pairs of compared candidates, `orders` as `every_two` lists them; the difference is the mean of both orders."""
    places = zip(every_two(candidates), orders, strict=True)
    return [Comparison(first, second, asked.mean, asked) for (first, second), asked in places]


def mean_preferences(candidates: int, comparisons: Sequence[Comparison]) -> list[float | None]:
    """A score for each compared candidate: its mean difference to the others; None without a usable comparison."""
    gained: list[list[float]] = [[] for _ in range(candidates)]
    for comparison in comparisons:
        if comparison.difference is not None:
            gained[comparison.first].append(comparison.difference)
            gained[comparison.second].append(-comparison.difference)
    return [sum(values) / len(values) if values else None for values in gained]


def sign(value: float) -> int:
    """-1, 0 or 1."""
    return (value > 0) - (value < 0)
