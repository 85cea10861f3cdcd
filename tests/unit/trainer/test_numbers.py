"""An answer's number is found as people write it."""

from decimal import Decimal

import pytest

from services.trainer.steps.numbers import final_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5 * 8 = 40\n#### 40", "40"),
        ("#### 1,234", "1234"),
        ("#### 12 eggs, of which 3 are brown", "12"),
        ("#### 3\nNo, wait:\n#### 4", "4"),
        ("7 apples ####", "7"),
        ("She has 3 bags with 4 apples, so 12.", "12"),
        ("It costs $1,234.50.", "1234.50"),
        ("The answer is -5", "-5"),
        ("The balance is -$3.20", "-3.2"),
        ("5-3", "3"),
        ("a loss of \u22127", "-7"),
        ("about 1.5e3", "1500"),
        (".5", "0.5"),
        ("1,2,3", "3"),
        ("\\boxed{42}", "42"),
        ("x = 042", "42"),
    ],
)
def test_the_number_behind_the_mark_counts_and_without_a_mark_the_last_one(text: str, number: str) -> None:
    assert final_number(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "none", "####", "-", "$", "\u0665"])
def test_a_text_without_a_number_has_none(text: str) -> None:
    assert final_number(text) is None


def test_equal_numbers_are_equal_however_they_are_written() -> None:
    assert final_number("18.00") == final_number("$18") == final_number("1.8e1") == Decimal(18)
