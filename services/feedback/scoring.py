"""Scores a model's answers on held-out rows with a judge; pure.

An answer that cannot be read has no score, not a bad one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from pydantic import Field

from schemas.answers import field_text
from schemas.base import Frozen
from schemas.lines import Prediction, RowScores
from schemas.recipes.feedback import FeedbackSettings
from services.feedback.judges.judge import Judge, TextToJudge, Tick


class ScoreReport(Frozen):
    """`report.json` of a score step."""

    judge: str
    settings: FeedbackSettings
    rows: int
    samples: int = Field(description="Number of sampled answers.")
    unread: int = Field(description="Number of samples without a readable text.")
    unjudged: int = Field(description="Number of readable samples without a score.")
    mean: float | None = Field(description="Mean over the samples that have a score; null without any.")
    deviation: float | None = Field(description="Standard deviation over the same samples.")
    greedy: int = Field(description="Number of most likely answers.")
    greedy_mean: float | None = Field(description="Mean over the most likely answers that have a score; null without any.")

    @property
    def metrics(self) -> dict[str, float | None]:
        """The step's metrics. `judge` is the mean over samples, or over the greedy answers if none were sampled."""
        return {
            "judge": self.mean if self.samples else self.greedy_mean,
            "judge_greedy": self.greedy_mean,
            "judge_unread": float(self.unread),
            "judge_unjudged": float(self.unjudged),
        }


@dataclass(frozen=True, slots=True)
class Scored:
    """The lines of `scores.jsonl` and their summary."""

    lines: list[RowScores]
    report: ScoreReport


def score_predictions(rows: Sequence[Prediction], judge: Judge, settings: FeedbackSettings, tick: Tick) -> Scored:
    """Ask the judge about all rows in one call; equal answers of a row are judged once."""
    asked: dict[tuple[int, str], TextToJudge] = {}
    for number, row in enumerate(rows):
        for answer in (*row.samples, row.greedy):
            if (text := field_text(answer, settings.judged_field)) is not None:
                asked.setdefault((number, text), TextToJudge(row.messages, row.columns, text))
    scores = dict(zip(asked, judge.score(list(asked.values()), tick), strict=True))

    def score(number: int, answer: str) -> float | None:
        text = field_text(answer, settings.judged_field)
        return None if text is None else scores[number, text]

    lines = [
        RowScores(
            id=row.id, scores=tuple(score(number, answer) for answer in row.samples), greedy=score(number, row.greedy)
        )
        for number, row in enumerate(rows)
    ]
    samples = [answer for row in rows for answer in row.samples]
    known = [one for line in lines for one in line.scores if one is not None]
    greedy = [line.greedy for line in lines if line.greedy is not None]
    unread = sum(field_text(answer, settings.judged_field) is None for answer in samples)
    report = ScoreReport(
        judge=judge.name,
        settings=settings,
        rows=len(rows),
        samples=len(samples),
        unread=unread,
        unjudged=len(samples) - unread - len(known),
        mean=fmean(known) if known else None,
        deviation=pstdev(known) if known else None,
        greedy=sum(bool(row.greedy) for row in rows),
        greedy_mean=fmean(greedy) if greedy else None,
    )
    return Scored(lines, report)
