"""The numbers by which models are compared, on answers worth counted by hand."""

import pytest

from schemas.lines import Message, Prediction
from schemas.rules import Rule
from services.trainer.steps.measures import exact_match, good_reply, valid_json

RULES = (Rule(name="kind", kind="contains_any", values=("sorry",)), Rule(name="item", kind="contains_field", column="item"))


def prediction(greedy: str, *samples: str, reference: str = '{"queue":"billing","reply":"Sorry."}') -> Prediction:
    return Prediction(
        id="1", messages=(Message(role="user", content="?"),), columns={"item": "kettle"}, reference=reference,
        greedy=greedy, samples=samples, nll=None,
    )  # fmt: skip


def test_valid_json_is_one_object_and_nothing_else() -> None:
    answers = ['{"queue":"a"}', ' {"queue":"a"}\n', "[1]", "5", '{"queue":"a"} done', "```json\n{}\n```"]
    assert valid_json([prediction(answer) for answer in answers]) == pytest.approx(2 / 6)


def test_exact_match_compares_the_named_fields_only() -> None:
    answers = ['{"reply":"No.","queue":"billing"}', '{"queue":"Billing"}', '{"reply":"Sorry."}', "billing"]
    assert exact_match([prediction(answer) for answer in answers], ["queue"]) == 0.25


def test_exact_match_without_fields_compares_the_whole_text() -> None:
    rows = [prediction(" yes ", reference="yes"), prediction("Yes", reference="yes")]
    assert exact_match(rows, []) == 0.5


def test_rows_whose_reference_lacks_a_field_do_not_count() -> None:
    rows = [prediction('{"queue":"a"}', reference="text"), prediction('{"queue":"a"}', reference='{"queue":"a"}')]
    assert exact_match(rows, ["queue"]) == 1.0
    assert exact_match(rows[:1], ["queue"]) is None


def test_a_good_reply_keeps_all_rules_and_an_unreadable_one_is_not_good() -> None:
    good = '{"reply":"Sorry about your kettle."}'
    bad = ('{"reply":"Sorry."}', '{"reply":"Your kettle."}', '{"answer":"Sorry, kettle"}', "Sorry, kettle", '{"reply":7}')
    assert (
        good_reply([prediction("", good, good), prediction("", *bad[:3]), prediction("", *bad[3:])], RULES, "reply")
        == 2 / 7
    )


def test_without_a_field_the_whole_answer_is_read() -> None:
    assert good_reply([prediction("", "Sorry, the kettle is late.", "No.")], RULES, None) == 0.5
