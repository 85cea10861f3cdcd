"""A held-out row stays held out for ever, whatever the data set grows to."""

from schemas.lines import Message, Row
from schemas.recipes.dataset import SplitSettings
from services.trainer.data.splitting import split_of


def row(prompt: str, completion: str = "x") -> Row:
    return Row(id="1", messages=(Message(role="user", content=prompt),), completion=completion, columns={})


ROWS = [row(f"prompt {number}") for number in range(2000)]


def test_the_shares_are_about_what_was_asked_for() -> None:
    settings = SplitSettings(validation_fraction=0.05, test_fraction=0.1)
    found = [split_of(row, settings) for row in ROWS]
    assert 150 < found.count("test") < 250
    assert 70 < found.count("validation") < 130


def test_answers_to_one_prompt_never_lie_in_two_splits() -> None:
    settings = SplitSettings(test_fraction=0.4)
    assert all(
        split_of(row(f"p{number}", "a"), settings) == split_of(row(f"p{number}", "b"), settings) for number in range(50)
    )


def test_a_row_held_out_once_stays_so_when_the_share_grows() -> None:
    small, large = SplitSettings(test_fraction=0.1), SplitSettings(test_fraction=0.3)
    held_out = [row for row in ROWS if split_of(row, small) == "test"]
    assert held_out
    assert {split_of(row, large) for row in held_out} == {"test"}


def test_without_shares_or_a_name_everything_is_learnt() -> None:
    none = SplitSettings(validation_fraction=0, test_fraction=0)
    unnamed = SplitSettings(test=None, validation_fraction=0)
    assert {split_of(row, settings) for row in ROWS for settings in (none, unnamed)} == {"train"}
