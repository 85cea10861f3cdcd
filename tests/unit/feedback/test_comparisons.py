"""When one candidate is better than another, when it is a tie, and when nothing is known."""

import pytest

from services.feedback.comparisons import Comparison, Verdict, from_orders, from_scores, mean_preferences
from services.feedback.judges.judge import Orders


def one(difference: float | None, orders: Orders | None = None) -> Comparison:
    return Comparison(0, 1, difference, orders)


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [
        (0.2, Verdict.FIRST),
        (-0.2, Verdict.SECOND),
        (0.19, Verdict.TIE),
        (-0.19, Verdict.TIE),
        (0.0, Verdict.TIE),
        (None, Verdict.NONE),
    ],
)
def test_a_difference_of_at_least_the_margin_decides(difference: float | None, verdict: Verdict) -> None:
    assert one(difference).verdict(0.2) is verdict


def test_no_difference_at_all_is_a_tie_even_without_a_margin() -> None:
    assert one(0.0).verdict(0.0) is Verdict.TIE


def test_a_verdict_that_changes_with_the_order_is_a_tie_however_strong_it_is() -> None:
    (comparison,) = from_orders(2, [Orders(forward=1.0, backward=-0.1)])
    assert comparison.difference == 0.45
    assert comparison.consistent is False
    assert comparison.verdict(0.2) is Verdict.TIE


def test_a_judge_that_always_prefers_the_text_shown_first_decides_nothing() -> None:
    (comparison,) = from_orders(2, [Orders(forward=0.9, backward=-0.9)])
    assert comparison.verdict(0.0) is Verdict.TIE


def test_a_judgement_in_one_order_only_is_none() -> None:
    (comparison,) = from_orders(2, [Orders(forward=1.0, backward=None)])
    assert comparison.verdict(0.2) is Verdict.NONE
    assert comparison.consistent is None


def test_both_orders_are_averaged() -> None:
    (comparison,) = from_orders(2, [Orders(forward=0.5, backward=0.25)])
    assert comparison.difference == 0.375


def test_every_two_scored_candidates_are_compared_and_a_missing_score_is_no_number() -> None:
    found = [(c.first, c.second, c.difference) for c in from_scores([1.0, None, 0.25])]
    assert found == [(0, 1, None), (0, 2, 0.75), (1, 2, None)]


def test_compared_candidates_get_their_mean_preference_as_score() -> None:
    orders = [Orders(1.0, 1.0), Orders(0.5, 0.5), Orders(None, 1.0)]
    assert mean_preferences(3, from_orders(3, orders)) == [0.75, -1.0, -0.5]


def test_a_candidate_without_a_usable_comparison_has_no_score() -> None:
    assert mean_preferences(2, from_orders(2, [Orders(None, None)])) == [None, None]
