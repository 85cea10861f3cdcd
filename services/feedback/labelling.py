"""Turns judged candidates into preference pairs and labels; pure, so that the rules can be read and tested alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schemas.lines import Label, Preference
from schemas.recipes.feedback import FeedbackSettings
from services.feedback import pairs
from services.feedback.comparisons import Comparison, every_two, from_orders, from_scores, mean_preferences
from services.feedback.groups import CandidateGroup
from services.feedback.judges.judge import ComparingJudge, Judge, Tick
from services.feedback.pairs import Choice


@dataclass(frozen=True, slots=True)
class Labelled:
    """One prompt after judging; `scores` are in the order of `group.candidates`."""

    group: CandidateGroup
    scores: Sequence[float | None]
    comparisons: Sequence[Comparison]
    choices: Sequence[Choice]


def label_groups(groups: Sequence[CandidateGroup], judge: Judge, settings: FeedbackSettings, tick: Tick) -> list[Labelled]:
    """Ask the judge about all prompts in one call, so that it can batch, and choose each prompt's pairs."""
    judged = _compared(groups, judge, tick) if isinstance(judge, ComparingJudge) else _scored(groups, judge, tick)
    return [
        Labelled(group, scores, comparisons, pairs.choose(scores, comparisons, settings.margin, settings.pairs_per_prompt))
        for group, scores, comparisons in judged
    ]


_Judgements = Iterator[tuple[CandidateGroup, Sequence[float | None], Sequence[Comparison]]]


def _scored(groups: Sequence[CandidateGroup], judge: Judge, tick: Tick) -> _Judgements:
    scores = iter(judge.score([text for group in groups for text in group.judged()], tick))
    for group in groups:
        own = [next(scores) for _ in group.candidates]
        yield group, own, from_scores(own)


def _compared(groups: Sequence[CandidateGroup], judge: ComparingJudge, tick: Tick) -> _Judgements:
    """Compare every two candidates of a prompt: n candidates take n (n - 1) questions."""
    asked = []
    for group in groups:
        texts = group.judged()
        asked += [(texts[first], texts[second]) for first, second in every_two(len(texts))]
    orders = iter(judge.compare(asked, tick))
    for group in groups:
        comparisons = from_orders(len(group.candidates), [next(orders) for _ in every_two(len(group.candidates))])
        yield group, mean_preferences(len(group.candidates), comparisons), comparisons


def preferences(labelled: Labelled, equal_fields: Sequence[str]) -> list[Preference]:
    """The prompt's preference pairs."""
    row, candidates = labelled.group.row, labelled.group.candidates
    found = []
    for choice in labelled.choices:
        chosen, rejected = pairs.answers(candidates[choice.chosen].answer, candidates[choice.rejected].answer, equal_fields)
        found.append(
            Preference(
                id=row.id,
                messages=row.messages,
                tools=row.tools,
                chosen=chosen,
                rejected=rejected,
                chosen_score=labelled.scores[choice.chosen],
                rejected_score=labelled.scores[choice.rejected],
            )
        )
    return found


def labels(labelled: Labelled) -> list[Label]:
    """The label of every candidate of the prompt, in the order of sampling. Equal candidates share their score."""
    group = labelled.group
    number = {candidate.index: number for number, candidate in enumerate(group.candidates)}
    found = []
    for index, answer in enumerate(group.row.candidates):
        known = number.get(group.equal_to.get(index, index))
        found.append(
            Label(
                id=group.row.id,
                candidate=index,
                answer=answer,
                judged=None if known is None else group.candidates[known].text,
                score=None if known is None else labelled.scores[known],
                verdict=_left_out(group, index) or _verdict(labelled, known),
            )
        )
    return found


def _left_out(group: CandidateGroup, index: int) -> str | None:
    if group.row.cut and group.row.cut[index]:
        return "cut"
    return "duplicate" if index in group.equal_to else None


def _verdict(labelled: Labelled, number: int | None) -> str:
    if number is None:
        return "unread"
    if labelled.scores[number] is None:
        return "unjudged"
    chosen = any(choice.chosen == number for choice in labelled.choices)
    rejected = any(choice.rejected == number for choice in labelled.choices)
    if chosen and rejected:
        return "both"
    return "chosen" if chosen else "rejected" if rejected else "unpaired"
