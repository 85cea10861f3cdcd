"""Judges by a constitution of checkable rules: free and exact, and the reference that other judges are measured against."""

from collections.abc import Mapping, Sequence

from schemas.rules import Rule, failures
from services.feedback.judges.judge import TextToJudge, Tick


def kept_share(rules: Sequence[Rule], text: str, columns: Mapping[str, str]) -> float:
    """Return the share of the rules that `text` keeps, 0 to 1; with n rules, each contributes 1 / n."""
    return 1 - len(failures(rules, text, columns)) / len(rules)


class RulesJudge:
    """Scores a text by the share of rules that it keeps."""

    name = "rules"

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules

    def score(self, texts: Sequence[TextToJudge], tick: Tick) -> list[float | None]:
        """Score the texts; every text gets a score."""
        scores: list[float | None] = []
        for text in texts:
            tick(len(scores), len(texts))
            scores.append(kept_share(self._rules, text.text, text.columns))
        tick(len(texts), len(texts))
        return scores
