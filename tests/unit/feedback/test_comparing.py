"""Which of two models a judge prefers: what nobody can read or judge decides nothing."""

from schemas.lines import AnswerPair, Message
from schemas.recipes.feedback import FeedbackSettings
from services.feedback.comparing import Compared, compare_pairs
from tests.feedback import Comparing, Told, quiet

SETTINGS = FeedbackSettings(margin=0.5)


def pair(first: str, second: str, row: str = "chatcmpl-1") -> AnswerPair:
    return AnswerPair(
        id=row, messages=(Message(role="user", content="Hello"),), first=first, second=second, first_version="router@1.0.0",
        second_version="router@2.0.0",
    )  # fmt: skip


def compared(judge: Told, *pairs: AnswerPair) -> Compared:
    return compare_pairs(pairs, judge, SETTINGS, quiet)


def verdicts(found: Compared) -> list[str]:
    return [line.verdict for line in found.lines]


def test_a_judge_that_scores_prefers_the_answer_with_the_higher_score_by_at_least_the_margin() -> None:
    judge = Told({"good": 1.0, "fair": 0.8, "bad": 0.0})
    found = compared(judge, pair("good", "bad"), pair("bad", "good"), pair("good", "fair"))
    assert verdicts(found) == ["first", "second", "tie"]
    assert found.report.metrics == {
        "pairs": 3.0, "first_better": 1.0, "second_better": 1.0, "ties": 1.0, "unjudged": 0.0, "position_consistency": None,
    }  # fmt: skip


def test_a_judge_that_compares_is_asked_in_both_orders_and_one_that_prefers_a_position_decides_nothing() -> None:
    by_length = Comparing(lambda shown, other: 1.0 if len(shown) > len(other) else -1.0)
    assert verdicts(compared(by_length, pair("short", "the longer one"))) == ["second"]
    always_the_first = Comparing(lambda shown, other: 1.0)
    found = compared(always_the_first, pair("short", "the longer one"))
    assert verdicts(found) == ["tie"]
    assert found.report.position_consistency == 0.0


def test_equal_answers_are_a_tie_about_which_nobody_is_asked() -> None:
    judge = Told({})
    found = compared(judge, pair("the same", "the same"))
    assert (verdicts(found), judge.asked, found.report.equal) == (["tie"], [], 1)


def test_an_answer_that_cannot_be_read_or_judged_is_no_tie() -> None:
    judge = Told({"good": 1.0, "odd": None})
    found = compared(judge, pair("good", "odd"), pair("good", "  "))
    assert verdicts(found) == ["none", "none"]
    assert (found.report.ties, found.report.unjudged) == (0, 2)
