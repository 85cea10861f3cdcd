"""Which comparisons become preference pairs, and what their answers are."""

import json

import pytest

from services.feedback.comparisons import from_orders, from_scores
from services.feedback.judges.judge import Orders
from services.feedback.pairs import Choice, answers, choose


def test_the_best_is_paired_with_the_worst() -> None:
    scores = [0.1, 0.9, -0.5, 0.3]
    assert choose(scores, from_scores(scores), 0.2, 1) == [Choice(chosen=1, rejected=2)]


def test_further_pairs_follow_by_falling_difference_down_to_the_margin() -> None:
    scores = [0.0, 1.0, 0.7]
    found = choose(scores, from_scores(scores), 0.5, 64)
    assert found == [Choice(chosen=1, rejected=0), Choice(chosen=2, rejected=0)]


def test_below_the_margin_there_is_no_pair() -> None:
    scores = [0.0, 0.19]
    assert choose(scores, from_scores(scores), 0.2, 1) == []


def test_a_candidate_without_a_score_is_in_no_pair() -> None:
    scores = [None, 1.0, 0.0]
    assert choose(scores, from_scores(scores), 0.2, 64) == [Choice(chosen=1, rejected=2)]


def test_a_comparing_judge_must_have_decided_the_very_pair() -> None:
    orders = [Orders(1.0, 1.0), Orders(1.0, -1.0), Orders(1.0, 1.0)]  # 0 > 1, 0 = 2 by position, 1 > 2
    found = choose([0.5, 0.0, -0.5], from_orders(3, orders), 0.2, 64)
    assert found == [Choice(chosen=0, rejected=1), Choice(chosen=1, rejected=2)]


def test_without_equal_fields_both_answers_stay_as_they_were_sampled() -> None:
    assert answers("better", "worse", ()) == ("better", "worse")


def test_equal_fields_take_the_chosen_ones_values_in_both_answers() -> None:
    chosen, rejected = (
        '{"queue":"billing","priority":"low","reply":"Thanks."}',
        '{"queue":"returns","priority":"high","reply":"No."}',
    )
    better, worse = answers(chosen, rejected, ("queue", "priority"))
    assert better == chosen
    assert worse == '{"queue":"billing","priority":"low","reply":"No."}'


def test_the_order_of_names_tells_nothing() -> None:
    better, worse = answers('{"queue":"billing","reply":"Thanks."}', '{"reply":"No.","queue":"returns"}', ("queue",))
    assert list(json.loads(worse)) == list(json.loads(better))


def test_fields_that_are_not_kept_equal_stay_the_rejected_ones_own() -> None:
    _, worse = answers(
        '{"queue":"billing","mood":"kind","reply":"Thanks."}', '{"queue":"returns","reply":"No.","note":1}', ("queue",)
    )
    assert json.loads(worse) == {"queue": "billing", "reply": "No.", "note": 1}


@pytest.mark.parametrize(
    "layout",
    [
        {"separators": (",", ":")},
        {"separators": (", ", ": ")},
        {"indent": 2},
        {"indent": 4},
        {"separators": (",", ":"), "ensure_ascii": False},
    ],
    ids=str,
)
def test_both_answers_have_the_chosen_ones_layout(layout: dict[str, object]) -> None:
    chosen = json.dumps({"queue": "billing", "reply": "Schöne Grüße."}, **layout)  # type: ignore[arg-type]
    better, worse = answers(chosen, '{ "queue" : "returns" , "reply" : "Nö." }', ("queue",))
    assert better == chosen
    assert worse == json.dumps({"queue": "billing", "reply": "Nö."}, **layout)  # type: ignore[arg-type]


def test_a_layout_that_nobody_writes_is_made_compact_in_both() -> None:
    better, worse = answers('{ "queue":"billing" ,"reply":"Thanks."}', '{"queue": "returns", "reply": "No."}', ("queue",))
    assert (better, worse) == ('{"queue":"billing","reply":"Thanks."}', '{"queue":"billing","reply":"No."}')
