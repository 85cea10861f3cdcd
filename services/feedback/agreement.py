"""Measures how reliable a judge is, with statistics that correct for chance. Pure functions over verdicts.

Percent agreement is high by chance if one verdict is frequent; Cohen's kappa corrects for that. Its interval is computed
over prompts, not comparisons, because the comparisons of one prompt share their texts.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt

from services.feedback.comparisons import Comparison, Verdict

Ratings = Counter[tuple[Verdict, Verdict]]
"""How often the two raters gave which two verdicts on the same comparison."""
_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Kappa:
    """Cohen's kappa (Cohen 1960): 1 is full agreement, 0 is agreement by chance."""

    value: float
    low: float | None
    high: float | None
    """95 % interval by the jackknife over prompts (Efron and Stein 1981); None with fewer than two prompts."""
    comparisons: int


def kappa(prompts: Sequence[Ratings]) -> Kappa | None:
    """Agreement of two raters beyond chance; None if it is undefined: no comparison, or one verdict throughout."""
    rated = [ratings for ratings in prompts if ratings.total()]
    whole: Ratings = Counter()
    for ratings in rated:
        whole.update(ratings)
    value = _kappa(whole)
    if value is None:
        return None
    without = [_kappa(whole - ratings) for ratings in rated]
    known = [one for one in without if one is not None]
    if len(known) < 2 or len(known) < len(without):
        return Kappa(value, None, None, whole.total())
    mean = sum(known) / len(known)
    spread = _Z95 * sqrt((len(known) - 1) / len(known) * sum((one - mean) ** 2 for one in known))
    return Kappa(value, max(-1.0, value - spread), min(1.0, value + spread), whole.total())


def _kappa(ratings: Ratings) -> float | None:
    total = ratings.total()
    if not total:
        return None
    rows, columns = Counter[Verdict](), Counter[Verdict]()
    for (one, other), count in ratings.items():
        rows[one] += count
        columns[other] += count
    agreed = sum(ratings[verdict, verdict] for verdict in rows) / total
    chance = sum(rows[verdict] * columns[verdict] for verdict in rows) / total**2
    return None if chance == 1 else (agreed - chance) / (1 - chance)


def transitivity(prompts: Iterable[tuple[Sequence[Comparison], float]]) -> float | None:
    """Return the share of decided triples (three candidates, three verdicts, no tie) that are transitive; None without any.

    Each item has one prompt's comparisons and the margin.
    """
    triples = circles = 0
    for comparisons, margin in prompts:
        beats = set()
        for comparison in comparisons:
            match comparison.verdict(margin):
                case Verdict.FIRST:
                    beats.add((comparison.first, comparison.second))
                case Verdict.SECOND:
                    beats.add((comparison.second, comparison.first))
        numbers = sorted({number for pair in beats for number in pair})
        for a, b, c in combinations(numbers, 3):
            decided = [(x, y) in beats or (y, x) in beats for x, y in ((a, b), (b, c), (a, c))]
            triples += all(decided)
            circles += {(a, b), (b, c), (c, a)} <= beats or {(b, a), (c, b), (a, c)} <= beats
    return None if not triples else 1 - circles / triples


def share(flags: Iterable[bool]) -> float | None:
    """Return the share of True; None without any."""
    counted = Counter(flags)
    return None if not counted else counted[True] / counted.total()
