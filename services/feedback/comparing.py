"""Judges which of two models answers better, prompt by prompt; pure.

A pair without a usable judgement has no verdict, not a tie. Equal answers are a tie about which no judge is asked.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from schemas.base import Frozen
from schemas.lines import AnswerPair, Candidates, ComparedPair
from schemas.recipes.feedback import FeedbackSettings
from services.feedback import agreement
from services.feedback.comparisons import Comparison, Verdict
from services.feedback.groups import CandidateGroup, group
from services.feedback.judges.judge import Judge, Tick
from services.feedback.labelling import label_groups


class ComparisonReport(Frozen):
    """`report.json` of a compare step."""

    judge: str
    settings: FeedbackSettings
    pairs: int
    first_better: int = Field(description="Pairs whose first answer is better.")
    second_better: int = Field(description="Pairs whose second answer is better.")
    ties: int = Field(description="Pairs of equal answers, below the margin, or with another verdict in the other order.")
    equal: int = Field(description="Those of the ties whose answers are equal.")
    unjudged: int = Field(description="Pairs without a usable judgement, or with an answer that cannot be read.")
    position_consistency: float | None = Field(
        description="Share of comparisons with the same verdict in both orders; null if the judge was not asked in both."
    )

    @property
    def metrics(self) -> dict[str, float | None]:
        """The step's metrics."""
        counts = {
            name: float(getattr(self, name)) for name in ("pairs", "first_better", "second_better", "ties", "unjudged")
        }
        return {**counts, "position_consistency": self.position_consistency}


@dataclass(frozen=True, slots=True)
class Compared:
    """The lines of `comparisons.jsonl` and their summary."""

    lines: list[ComparedPair]
    report: ComparisonReport


def compare_pairs(pairs: Sequence[AnswerPair], judge: Judge, settings: FeedbackSettings, tick: Tick) -> Compared:
    """Ask the judge about all pairs in one call, a judge that compares in both orders."""
    groups = [group(_row(pair), settings.judged_field, settings.equal_fields) for pair in pairs]
    judged = iter(label_groups([one for one in groups if _differs(one)], judge, settings, tick))
    found = [next(judged).comparisons[0] if _differs(one) else _unasked(one) for one in groups]
    lines = [_line(one, comparison, settings.margin) for one, comparison in zip(groups, found, strict=True)]
    verdicts = Counter(line.verdict for line in lines)
    report = ComparisonReport(
        judge=judge.name,
        settings=settings,
        pairs=len(lines),
        first_better=verdicts[Verdict.FIRST],
        second_better=verdicts[Verdict.SECOND],
        ties=verdicts[Verdict.TIE],
        equal=sum(bool(one.equal_to) for one in groups),
        unjudged=verdicts[Verdict.NONE],
        position_consistency=agreement.share(line.consistent for line in lines if line.consistent is not None),
    )
    return Compared(lines, report)


def _row(pair: AnswerPair) -> Candidates:
    return Candidates(id=pair.id, messages=pair.messages, completion="", columns={}, candidates=(pair.first, pair.second))


def _line(one: CandidateGroup, found: Comparison, margin: float) -> ComparedPair:
    return ComparedPair(
        id=one.row.id, verdict=found.verdict(margin), difference=found.difference, consistent=found.consistent
    )


def _differs(one: CandidateGroup) -> bool:
    """Whether both answers can be read and are not the same, so that a judge is asked."""
    return len(one.candidates) == 2


def _unasked(one: CandidateGroup) -> Comparison:
    """Return the comparison of equal answers, or that of a pair with an answer that cannot be read."""
    return Comparison(0, 1, 0.0 if one.equal_to else None)
