"""An answer that was cut at max_new_tokens is never learnt, since it would teach to end in the middle of a sentence."""

from typing import Any

from schemas.lines import Candidates
from schemas.recipes.feedback import FeedbackSettings
from services.feedback.groups import CandidateGroup, group
from services.feedback.judges.judge import TextToJudge, Tick
from services.feedback.labelling import Labelled, label_groups, labels, preferences
from services.feedback.report import label_report, without_pairs
from tests.feedback import quiet, row


class Longest:
    """Scores a text by its length."""

    name = "longest"

    def score(self, texts: list[TextToJudge], tick: Tick) -> list[float | None]:
        return [float(len(text.text)) for text in texts]


def cut(one: Candidates, *places: int) -> Candidates:
    return one.model_copy(update={"cut": tuple(place in places for place in range(len(one.candidates)))})


def labelled(*rows: Candidates) -> list[Labelled]:
    groups = [group(one, None, ()) for one in rows]
    return label_groups(groups, Longest(), FeedbackSettings(margin=0.1), quiet)  # type: ignore[arg-type]


def grouped(*candidates: str, without_end: tuple[int, ...]) -> CandidateGroup:
    return group(cut(row(*candidates), *without_end), None, ())


def test_cut_candidates_are_neither_judged_nor_unread() -> None:
    found = grouped("Yes.", "No, because the", "No.", without_end=(1,))
    assert [judged.text for judged in found.judged()] == ["Yes.", "No."]
    assert (found.cut, found.unread) == (1, 0)


def test_a_cut_candidate_does_not_hide_an_equal_one_that_ended() -> None:
    found = grouped("Yes", "Yes", without_end=(0,))
    assert [candidate.index for candidate in found.candidates] == [1]


def test_pairs_are_formed_of_candidates_that_ended() -> None:
    (one,) = labelled(cut(row("No, because the shop is", "Yes, it is.", "No."), 0))
    (pair,) = preferences(one, ())
    assert (pair.chosen, pair.rejected) == ("Yes, it is.", "No.")
    assert [label.verdict for label in labels(one)] == ["cut", "chosen", "rejected"]


def test_cut_candidates_are_counted() -> None:
    found = labelled(cut(row("a", "bb", "ccc"), 2), row("d", "ee"))
    report = label_report("longest", FeedbackSettings(), found)
    assert (report.cut, report.unread, report.candidates, report.pairs) == (1, 0, 5, 2)


def test_without_pairs_the_reason_names_the_limit_that_cut_all_candidates() -> None:
    found = labelled(cut(row("a", "bb"), 0, 1))
    reason = without_pairs(label_report("longest", FeedbackSettings(), found), found)
    assert (reason.field, "max_new_tokens" in reason.remedy) == ("sampling.max_new_tokens", True)


def test_without_two_ended_candidates_the_reason_tells_how_many_were_cut() -> None:
    found = labelled(cut(row("a", "bb", "a"), 1))
    reason = without_pairs(label_report("longest", FeedbackSettings(), found), found)
    assert "1 were cut" in reason.message
    assert "max_new_tokens" in reason.remedy


def test_candidates_of_an_earlier_release_have_all_ended() -> None:
    stored: dict[str, Any] = row("a", "bb").model_dump(exclude={"cut"})
    assert group(Candidates.model_validate(stored), None, ()).cut == 0
