"""A layout is recognised by the usual names of its columns; what fits none, or several, is refused with the names expected."""

from typing import Any

import pytest

from schemas.recipes.dataset import DatasetSettings
from services.chassis.executor.child import UserFault
from services.trainer.data.layouts import Learns, RowReading, reading_of

CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
TALK = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
SECRET = "a name that is nobody's business"


def reading(*rows: dict[str, Any], learns: Learns = "answers", **given: Any) -> RowReading:
    return reading_of(DatasetSettings.model_validate({"reference": "x", **given}), rows, learns)


def refused(*rows: dict[str, Any], learns: Learns = "answers", **given: Any) -> str:
    with pytest.raises(UserFault) as raised:
        reading(*rows, learns=learns, **given)
    return str(raised.value)


@pytest.mark.parametrize(
    ("row", "layout", "words"),
    [
        ({"messages": CHAT}, "messages", "in the columns messages"),
        ({"conversations": TALK, "system": "s", "tools": "[]"}, "sharegpt", "in the columns conversations, system, tools"),
        ({"instruction": "a", "input": "", "output": "b"}, "alpaca", "in the columns instruction, output, input"),
        ({"prompt": "a", "completion": "b", "text": "ab"}, "prompt_completion", "in the columns prompt, completion"),
        ({"text": "a"}, "text", "in the columns text"),
    ],
)
def test_answers_are_recognised(row: dict[str, Any], layout: str, words: str) -> None:
    found = reading(row)
    assert found.layout == layout
    assert words in found.words


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "a"}, "prompts without answers, in the columns prompt"),
        ({"prompt": "a", "text": "b"}, "prompts without answers, in the columns prompt"),
        ({"prompt": "a", "solution": "b"}, "in the columns prompt, solution"),
        ({"prompt": CHAT[:1], "reward_model": {"ground_truth": "b"}}, "in the columns prompt, reward_model.ground_truth"),
        ({"prompt": "a", "completion": "b", "answer": "c"}, "in the columns prompt, completion"),
        ({"instruction": "a", "input": ""}, "prompts without answers, in the columns instruction, input"),
        ({"messages": CHAT[:1]}, "in the columns messages"),
        ({"messages": CHAT[:1], "ground_truth": 4}, "in the columns messages, ground_truth"),
    ],
)
def test_what_samples_its_answers_needs_prompts_and_takes_what_they_are_compared_with(
    row: dict[str, Any], words: str
) -> None:
    assert words in reading(row, learns="prompts").words


def test_prompts_without_answers_are_not_learnt_from_without_a_word() -> None:
    said = refused({"prompt": "a", "solution": "b"})
    assert "prompts and no answers" in said
    assert "grpo" in said
    assert "none of the first rows has a column named 'answr'" in refused(
        {"prompt": "a", "answer": "b"}, learns="prompts", columns={"completion": "answr"}
    )


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"chosen": CHAT, "rejected": CHAT},
        {"conversations": TALK[:1], "chosen": TALK[1], "rejected": TALK[1]},
        {"instruction": "a", "input": "", "chosen": "b", "rejected": "c"},
        {"input": {"messages": CHAT[:1], "tools": []}, "preferred_output": CHAT[1:], "non_preferred_output": CHAT[1:]},
    ],
)
def test_pairs_are_recognised_and_never_learnt_as_answers_without_a_word(row: dict[str, Any]) -> None:
    assert reading(row, learns="pairs").layout == "preference"
    assert reading(row, learns="labels").layout == "preference"
    said = refused(row)
    assert "preference pairs" in said
    assert "rejected" in said


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "completion": "b", "label": True},
        {"messages": CHAT, "label": False},
        {"instruction": "a", "output": "b", "kto_tag": "true"},
    ],
)
def test_labelled_answers_are_recognised_and_never_all_learnt_without_a_word(row: dict[str, Any]) -> None:
    assert reading(row, learns="labels").layout == "kto"
    assert "labels" in refused(row)
    assert "labels" in refused(row, layout="kto")


def test_a_label_that_is_no_truth_value_is_a_column_like_any_other() -> None:
    assert reading({"prompt": "a", "completion": "b", "label": "positive"}).layout == "prompt_completion"


def test_several_layouts_are_refused_unless_one_is_named() -> None:
    row = {"messages": CHAT, "instruction": "a", "output": "b", SECRET: 1}
    said = refused(row)
    assert "messages, alpaca" in said
    assert SECRET not in said
    assert reading(row, layout="alpaca").layout == "alpaca"


def test_an_unknown_layout_is_refused_with_the_columns_that_would_be_known() -> None:
    said = refused({SECRET: "a", "answer": "b"})
    assert "instruction and output" in said
    assert "chosen and rejected" in said
    assert "2 columns" in said
    assert SECRET not in said


def test_named_columns_need_no_recognition() -> None:
    assert reading({"q": 1, "a": 2}, columns={"prompt": "q", "completion": "a"}).layout == "prompt_completion"
    assert reading({"w": 1}, columns={"chosen": "w", "rejected": "l"}, learns="pairs").layout == "preference"


def test_a_column_that_may_be_absent_is_refused_where_no_row_has_it() -> None:
    assert "none of the first rows" in refused({"prompt": "a", "completion": "b"}, columns={"system": "sistem"})


@pytest.mark.parametrize(
    ("row", "given", "unread"),
    [
        ({"instruction": "a", "input": "b", "output": "c"}, {"columns": {"prompt": "instruction", "completion": "output"}}, ["input"]),
        ({"instruction": "a", "input": "b", "output": "c"}, {}, []),
        ({"instruction": "a", "input": float("nan"), "output": "c", "tools": []}, {}, []),
        ({"messages": CHAT, "tools": [{}], "functions": [{}]}, {}, ["functions"]),
        ({"messages": CHAT, "images": ["cat.png"]}, {}, ["images"]),
        ({"prompt": "a", "completion": "b", "label": 0}, {}, ["label"]),
        ({"input": {"messages": CHAT[:1]}, "preferred_output": CHAT[1:], "non_preferred_output": CHAT[1:]}, {"learns": "pairs"}, []),
    ],
)  # fmt: skip
def test_columns_with_usual_names_that_are_not_read_are_told(row: dict[str, Any], given: Any, unread: list[str]) -> None:
    assert list(reading(row, **given).unread(row)) == unread


@pytest.mark.parametrize(
    ("first", "column"),
    [
        ({"messages": CHAT}, "system"),
        ({"messages": CHAT}, "tools"),
        ({"instruction": "a", "output": "b"}, "input"),
        ({"instruction": "a", "output": "b"}, "history"),
    ],
)
def test_a_column_that_only_later_rows_have_is_read_and_not_said_of_the_first(first: dict[str, Any], column: str) -> None:
    found = reading(first)
    assert getattr(found.columns, column) == column
    assert column not in found.words


@pytest.mark.parametrize("label", [1, "0", "yes", None, float("nan")])
def test_where_labels_are_learnt_a_column_is_one_by_its_name(label: object) -> None:
    assert reading({"prompt": "a", "completion": "b", "label": label}, learns="labels").layout == "kto"


@pytest.mark.parametrize("missing", [None, "", float("nan")])
def test_a_missing_label_does_not_turn_unwanted_answers_into_wanted_ones(missing: object) -> None:
    assert "labels" in refused(*({"prompt": "a", "completion": "b", "label": label} for label in (False, missing)))


def test_rows_without_pairs_are_refused_by_a_pipeline_that_learns_from_pairs() -> None:
    assert "chosen and rejected" in refused({"prompt": "a", "completion": "b"}, learns="pairs")
