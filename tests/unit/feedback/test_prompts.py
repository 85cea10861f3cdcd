"""What judges are asked, and how strictly their answers are read."""

import math

import pytest

from schemas.lines import Message
from schemas.recipes.feedback import Rubric
from services.feedback.judges import prompts
from services.feedback.judges.judge import Orders, TextToJudge

RUBRIC = Rubric(principle="Be kind.", opposite="Be rude.")
PROMPT = (Message(role="system", content="Answer with JSON."), Message(role="user", content="Where is my kettle?"))


def judged(text: str) -> TextToJudge:
    return TextToJudge(PROMPT, {}, text)


def test_a_comparison_shows_rubric_request_and_both_texts_but_no_instruction_to_the_answerer() -> None:
    system, user = prompts.comparison(RUBRIC, judged("Thanks."), "No.")
    assert system.role == "system"
    assert "Be kind." in user.content
    assert "Be rude." in user.content
    assert "Where is my kettle?" in user.content
    assert user.content.index("Thanks.") < user.content.index("No.")
    assert "JSON" not in user.content


def test_each_pair_is_asked_in_both_orders() -> None:
    one, other = prompts.both_orders(RUBRIC, [(judged("Thanks."), judged("No."))])
    assert one == prompts.comparison(RUBRIC, judged("Thanks."), "No.")
    assert other == prompts.comparison(RUBRIC, judged("No."), "Thanks.")


def test_preferences_of_both_orders_are_told_from_the_first_texts_side() -> None:
    assert prompts.orders([0.5, -0.25, None, 1.0]) == [Orders(0.5, 0.25), Orders(None, -1.0)]


@pytest.mark.parametrize("text", ["A", " A\n", "**A**", "(A)", "A.", '"A"', "A\n\nText A is kinder."])
def test_a_letter_alone_is_an_answer_whatever_marks_are_around_it(text: str) -> None:
    assert prompts.read(text, [], prompts.LETTERS) == {"A": 1.0}


@pytest.mark.parametrize("text", ["", "AB", "Both", "A or B", "Text A", "a", "C", "4", "I prefer A because it is kind."])
def test_anything_else_is_no_answer(text: str) -> None:
    assert prompts.read(text, [], prompts.LETTERS) is None


def test_a_sentence_that_begins_with_a_letter_is_no_answer_whatever_its_probability() -> None:
    assert prompts.read("A strong reply is B", [{"A": -0.1, "B": -3.0}], prompts.LETTERS) is None


def test_token_probabilities_say_how_sure_the_judge_is() -> None:
    positions = [{"A": math.log(0.6), "B": math.log(0.2), " A": math.log(0.1), "The": math.log(0.1)}]
    found = prompts.read("A", positions, prompts.LETTERS)
    assert found is not None
    assert found == pytest.approx({"A": 0.7, "B": 0.2})
    assert prompts.preference(found) == pytest.approx(0.5 / 0.9)


def test_the_letter_may_come_after_tokens_that_only_decorate_it() -> None:
    positions = [{"**": math.log(0.9), "A": math.log(0.1)}, {"B": math.log(0.8), "A": math.log(0.2)}]
    assert prompts.read("**B", positions, prompts.LETTERS) == pytest.approx({"A": 0.2, "B": 0.8})


def test_a_grade_is_the_mean_under_the_probabilities() -> None:
    found = prompts.read("4", [{"4": math.log(0.5), "5": math.log(0.25), "3": math.log(0.25)}], prompts.GRADES)
    assert found is not None
    assert prompts.expected_grade(found) == pytest.approx(4.0)


def test_nothing_said_is_no_number() -> None:
    assert prompts.preference({"A": 0.0, "B": 0.0}) is None
    assert prompts.expected_grade({}) is None
