"""Determines which of a prompt's candidates can be judged and compared, before any judge is asked."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schemas.answers import field_text, json_object
from schemas.lines import Candidates
from services.feedback.judges.judge import TextToJudge


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sampled answer that can be judged."""

    index: int
    """Index among the row's candidates, from 0."""
    answer: str
    text: str
    """The text that is judged."""


@dataclass(frozen=True, slots=True)
class CandidateGroup:
    """One prompt with its candidates."""

    row: Candidates
    candidates: tuple[Candidate, ...]
    """The readable candidates with different judged texts, in the order of sampling."""
    equal_to: Mapping[int, int]
    """Maps the index of a candidate with a repeated judged text to the index of its first occurrence."""

    def judged(self) -> list[TextToJudge]:
        """The candidates as judges see them."""
        return [TextToJudge(self.row.messages, self.row.columns, candidate.text) for candidate in self.candidates]

    @property
    def cut(self) -> int:
        """Number of candidates that have no end."""
        return sum(self.row.cut)

    @property
    def unread(self) -> int:
        """Number of candidates with an end that cannot be judged."""
        return len(self.row.candidates) - self.cut - len(self.candidates) - len(self.equal_to)


def group(row: Candidates, judged_field: str | None, equal_fields: Iterable[str]) -> CandidateGroup:
    """Group a row's candidates into distinct, repeated, cut and unreadable ones.

    An answer is unreadable if it is not a JSON object, has no text in the judged field, or lacks a field that a pair keeps
    equal. Candidates with the same judged text are equal, since a judge could not distinguish them. Candidates that were cut
    at max_new_tokens are left out: a pair would teach that an answer ends in the middle of a sentence.
    """
    first: dict[str, Candidate] = {}
    equal_to: dict[int, int] = {}
    for index, answer in enumerate(row.candidates):
        if row.cut and row.cut[index]:
            continue
        text = field_text(answer, judged_field)
        if text is None or not set(equal_fields) <= set(json_object(answer) or ()):
            continue
        known = first.setdefault(text, Candidate(index, answer, text))
        if known.index != index:
            equal_to[index] = known.index
    return CandidateGroup(row, tuple(first.values()), equal_to)
