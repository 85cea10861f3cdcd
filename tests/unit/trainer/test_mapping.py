"""A row is used as its owner meant it, or refused with the column and what to do; never guessed."""

from typing import Any

import pytest

from schemas.lines import Row
from schemas.recipes import DatasetSettings
from services.trainer.data.mapping import RowFault, row_of
from services.trainer.data.raw import RawRow


def mapped(values: dict[str, object], **settings: Any) -> Row:
    return row_of(RawRow("a place", values), "row-1", DatasetSettings.model_validate({"reference": "x", **settings}))


def turns(row: Row) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in row.messages]


def test_prompt_and_completion_become_a_chat_and_all_columns_are_kept_as_text() -> None:
    row = mapped({"q": "Why?", "a": 42, "tags": ["x"]}, columns={"prompt": "q", "completion": "a"})
    assert turns(row) == [("user", "Why?")]
    assert row.completion == "42"
    assert row.columns == {"q": "Why?", "a": "42", "tags": '["x"]'}


def test_a_rows_own_system_prompt_goes_before_the_data_sets() -> None:
    columns = {"system": "system"}
    own: dict[str, object] = {"prompt": "Hi", "completion": "Hello", "system": "Be brief."}
    assert turns(mapped(own, columns=columns, system_prompt="Be kind."))[0] == ("system", "Be brief.")
    assert turns(mapped({**own, "system": ""}, columns=columns, system_prompt="Be kind."))[0] == ("system", "Be kind.")


def test_of_a_chat_the_last_answer_is_learnt_and_the_rest_is_context() -> None:
    chat = [("user", "One?"), ("assistant", "Two."), ("user", "Three?"), ("assistant", "Four.")]
    row = mapped({"chat": [{"role": role, "content": text} for role, text in chat]}, columns={"messages": "chat"})
    assert turns(row) == chat[:-1]
    assert row.completion == "Four."


def test_chats_with_from_and_value_are_understood() -> None:
    chat = [{"from": "human", "value": "Who are you?"}, {"from": "gpt", "value": "A model."}]
    row = mapped({"conversations": chat}, columns={"messages": "conversations"})
    assert (turns(row), row.completion) == ([("user", "Who are you?")], "A model.")


def test_a_chat_may_be_json_in_a_text_column() -> None:
    row = mapped(
        {"chat": '[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]'}, columns={"messages": "chat"}
    )  # fmt: skip
    assert row.completion == "b"


def test_a_missing_column_tells_how_many_columns_there_are_and_not_which() -> None:
    with pytest.raises(RowFault) as raised:
        mapped({"question": "Why?", "answer": "So."})
    assert raised.value.field == "dataset.columns.prompt"
    assert raised.value.message == "none of the 2 columns is named 'prompt'"


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"prompt": " ", "completion": "x"}, "dataset.columns.prompt", "empty"),
        ({"prompt": "x", "completion": ""}, "dataset.columns.completion", "empty"),
        ({"prompt": "x", "completion": None}, "dataset.columns.completion", "null"),
        ({"prompt": ["x"], "completion": "x"}, "dataset.columns.prompt", "a list"),
        ({"prompt": {"x": 1}, "completion": "x"}, "dataset.columns.prompt", "a dict"),
    ],
)
def test_what_is_no_text_is_refused(values: dict[str, object], field: str, words: str) -> None:
    with pytest.raises(RowFault) as raised:
        mapped(values)
    assert raised.value.field == field
    assert words in raised.value.message


@pytest.mark.parametrize(
    ("chat", "words"),
    [
        ("no json", "not JSON"),
        ("{}", "not contain a list of turns"),
        ([], "does not end with"),
        ([{"role": "assistant", "content": "to nobody"}], "does not end with"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}], "does not end with"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}], "empty"),
        ([{"who": "user", "text": "a"}, {"role": "assistant", "content": "b"}], "no text in role and content"),
        (["a", "b"], "a turn in 'chat' is a str"),
        (
            [{"role": "user", "content": "a"}, {"role": "system", "content": "s"}, {"role": "assistant", "content": "b"}],
            "not the first turn",
        ),
    ],
)
def test_what_is_no_chat_is_refused(chat: object, words: str) -> None:
    with pytest.raises(RowFault) as raised:
        mapped({"chat": chat}, columns={"messages": "chat"})
    assert raised.value.field == "dataset.columns.messages"
    assert words in raised.value.message
