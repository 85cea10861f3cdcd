"""Preference pairs are read in every usual form; a pair that prefers nothing, or compares two chats, is refused."""

import json
from typing import Any

import pytest

from schemas.recipes.dataset import DatasetSettings
from services.trainer.data.columns import RowFault
from services.trainer.data.layouts import reading_of
from services.trainer.data.mapping import example_of
from services.trainer.data.raw import RawRow, StoredExample

USER, GOOD, BAD = (
    {"role": r, "content": c} for r, c in (("user", "Open?"), ("assistant", "Until six."), ("assistant", "No."))
)

CALL: dict[str, Any] = {"function": {"name": "hours", "arguments": {}}}
CALLS: dict[str, Any] = {"role": "assistant", "tool_calls": [CALL]}
CALLS_OTHERS: dict[str, Any] = {"role": "assistant", "tool_calls": [{"function": {"name": "door", "arguments": {}}}]}


def read(values: dict[str, Any], **given: Any) -> StoredExample:
    settings = DatasetSettings.model_validate({"reference": "x", **given})
    return example_of(RawRow("a place", values), "row-1", settings, reading_of(settings, [values], "labels"))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Open?", "chosen": "Until six.", "rejected": "No."},
        {"prompt": "Open?", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"conversations": [{"from": "human", "value": "Open?"}], "chosen": GOOD, "rejected": BAD},
        {"instruction": "Open?", "chosen": "Until six.", "rejected": "No."},
        {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
        {"prompt": "\n\nHuman: Open?\n\nAssistant:", "chosen": "Until six.", "rejected": "No."},
        {"prompt": [USER], "chosen": json.dumps([GOOD]), "rejected": f"[ {json.dumps(BAD)}]"},
        {"chosen": "\n\nHuman: Open?\n\nAssistant: Until six.", "rejected": "\n\nHuman: Open?\n\nAssistant: No."},
    ],
)
def test_the_usual_forms_say_the_same(row: dict[str, Any]) -> None:
    example = read(row)
    assert [(turn.role, turn.content) for turn in example.row.messages] == [("user", "Open?")]
    assert (example.row.completion, example.rejected) == ("Until six.", "No.")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "b "}, "are equal"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "null"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "is empty"),
        ({"chosen": "b", "rejected": "c"}, "no prompt"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "no prompt"),
        ({"chosen": [USER, GOOD], "rejected": [{"role": "user", "content": "Else?"}, BAD]}, "differ before"),
        ({"prompt": "Else?", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "another prompt"),
        ({"chosen": [USER], "rejected": [USER]}, "does not end with"),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, "no turn before"),
        ({"prompt": [USER, GOOD], "chosen": "a", "rejected": "b"}, "ends with an answer already"),
        ({"conversations": [USER, GOOD], "chosen": GOOD, "rejected": BAD}, "ends with an answer already"),
        ({"prompt": "Open?", "chosen": {**GOOD, "tool_calls": [CALL]}, "rejected": BAD}, "'chosen' has tool_calls"),
        (
            {"prompt": "Open?", "chosen": GOOD, "rejected": {**BAD, "reasoning_content": "Hm."}},
            "'rejected' has reasoning_content",
        ),
        ({"chosen": [USER, CALLS, USER, GOOD], "rejected": [USER, CALLS_OTHERS, USER, BAD]}, "differ before"),
    ],
)
def test_what_is_no_pair_is_refused(row: dict[str, Any], words: str) -> None:
    with pytest.raises(RowFault, match=words):
        read(row)


def test_an_answer_may_be_json() -> None:
    answers = {"chosen": '[{"item": "lamp"}]', "rejected": "[{}]"}
    example = read({"prompt": "List the lamps.", **answers})
    assert (example.row.completion, example.rejected) == tuple(answers.values())


@pytest.mark.parametrize(
    ("label", "wanted"), [(True, True), ("False", False), (1, True), (0, False), ("1", True), ("0", False)]
)
def test_a_label_says_whether_an_answer_is_wanted(label: object, wanted: bool) -> None:
    assert read({"prompt": "a", "completion": "b", "label": label}, columns={"label": "label"}).label is wanted


def test_a_label_that_is_neither_is_refused() -> None:
    with pytest.raises(RowFault, match="neither true nor false"):
        read({"prompt": "a", "completion": "b", "label": "maybe"}, columns={"label": "label"})
