"""The numbers by which models are compared, on answers worth counted by hand."""

from collections.abc import Sequence

import pytest

from schemas.lines import Message, Prediction
from schemas.rules import Rule
from services.trainer.steps.measures import (
    Check,
    exact_match,
    greedy_shares,
    keeps_rules,
    number_match,
    pass_at,
    sampled_shares,
    valid_json,
)

RULES = (Rule(name="kind", kind="contains_any", values=("sorry",)), Rule(name="item", kind="contains_field", column="item"))


def prediction(greedy: str, *samples: str, reference: str = '{"queue":"billing","reply":"Sorry."}') -> Prediction:
    return Prediction(
        id="1", messages=(Message(role="user", content="?"),), columns={"item": "kettle"}, reference=reference,
        greedy=greedy, samples=samples, nll=None,
    )  # fmt: skip


def greedy(check: Check, answers: Sequence[str]) -> list[float]:
    return greedy_shares(check, [prediction(answer) for answer in answers])


def test_valid_json_is_one_object_and_nothing_else() -> None:
    answers = ['{"queue":"a"}', ' {"queue":"a"}\n', "[1]", "5", '{"queue":"a"} done', "```json\n{}\n```"]
    assert greedy(valid_json, answers) == [1, 1, 0, 0, 0, 0]


def test_exact_match_compares_the_named_fields_only() -> None:
    answers = ['{"reply":"No.","queue":"billing"}', '{"queue":"Billing"}', '{"reply":"Sorry."}', "billing"]
    assert greedy(exact_match(["queue"]), answers) == [1, 0, 0, 0]


def test_exact_match_without_fields_compares_the_whole_text() -> None:
    rows = [prediction(" yes ", reference="yes"), prediction("Yes", reference="yes")]
    assert greedy_shares(exact_match([]), rows) == [1, 0]


def test_rows_whose_reference_lacks_a_field_do_not_count() -> None:
    rows = [prediction('{"queue":"a"}', reference="text"), prediction('{"queue":"a"}', reference='{"queue":"a"}')]
    assert greedy_shares(exact_match(["queue"]), rows) == [1]
    assert greedy_shares(exact_match(["queue"]), rows[:1]) == []


def test_rows_whose_reference_has_no_number_do_not_count() -> None:
    rows = [prediction("It is 7.", reference="many"), prediction("8", "It is 7.", "", reference="3 + 4 = 7\n#### 7")]
    assert greedy_shares(number_match, rows) == [0]
    assert sampled_shares(number_match, rows) == [0.5]


def test_a_good_reply_keeps_all_rules_and_an_unreadable_one_is_not_good() -> None:
    good = '{"reply":"Sorry about your kettle."}'
    bad = ('{"reply":"Sorry."}', '{"reply":"Your kettle."}', '{"answer":"Sorry, kettle"}', "Sorry, kettle", '{"reply":7}')
    rows = [prediction("", good, good), prediction("", *bad[:3]), prediction("", *bad[3:])]
    assert sampled_shares(keeps_rules(RULES, "reply"), rows) == [1, 0, 0]


def test_without_a_field_the_whole_answer_is_read() -> None:
    assert sampled_shares(keeps_rules(RULES, None), [prediction("", "Sorry, the kettle is late.", "No.")]) == [0.5]


@pytest.mark.parametrize(("k", "expected"), [(1, 1 / 4), (2, 1 / 2), (3, 3 / 4), (4, 1.0)])
def test_pass_at_k_is_the_share_of_draws_of_k_answers_with_one_that_passes(k: int, expected: float) -> None:
    row = prediction("", "yes", "no", "no", "no", reference="yes")
    assert pass_at(k, exact_match([]), [row]) == [pytest.approx(expected)]


def test_pass_at_k_is_0_where_no_answer_passes_and_1_where_too_few_fail() -> None:
    rows = [prediction("", "no", "no", "no", reference="yes"), prediction("", "yes", "yes", "no", reference="yes")]
    assert pass_at(2, exact_match([]), rows) == [0, 1]
