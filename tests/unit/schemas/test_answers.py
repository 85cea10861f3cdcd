"""How an answer is read: by metrics, judges and preference pairs alike."""

import pytest

from schemas.answers import field_text, json_object


def test_an_object_is_read_with_white_space_around_it() -> None:
    assert json_object(' \n{"queue": "billing", "n": 1}\n ') == {"queue": "billing", "n": 1}


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "hello",
        '{"queue": "billing"',
        '["queue"]',
        '"queue"',
        'Sure! {"queue": "billing"}',
        '```json\n{"queue": "billing"}\n```',
        '{"queue": "billing"} {}',
        "{'queue': 'billing'}",
        '{"share": NaN}',
        '{"share": Infinity}',
        '{"reply": "\\ud800"}',
        '{"n": ' + "9" * 5000 + "}",
        '{"a":' * 100_000,
    ],
    ids=lambda answer: answer[:20] or "(empty)",
)
def test_what_a_program_would_not_read_as_one_object_is_none(answer: str) -> None:
    assert json_object(answer) is None


def test_of_a_repeated_name_the_last_value_counts() -> None:
    assert json_object('{"queue": "billing", "queue": "returns"}') == {"queue": "returns"}


def test_a_field_is_its_text_without_white_space_around_it() -> None:
    assert field_text('{"reply": " Thank you. "}', "reply") == "Thank you."


def test_without_a_field_the_whole_answer_is_the_text() -> None:
    assert field_text(" Thank you.\n", None) == "Thank you."


@pytest.mark.parametrize(
    "answer",
    ["hello", '{"queue": "billing"}', '{"reply": null}', '{"reply": 5}', '{"reply": ["Thanks"]}', '{"reply": "  "}'],
)
def test_a_field_that_holds_no_text_is_none(answer: str) -> None:
    assert field_text(answer, "reply") is None


def test_a_blank_answer_is_none() -> None:
    assert field_text(" \n", None) is None
