"""A row is used as its owner meant it, or refused with the column and what to do; never guessed."""

import datetime
import json
from typing import Any

import pytest

from schemas.lines import Row
from schemas.recipes.dataset import DatasetSettings
from services.trainer.data.columns import RowFault
from services.trainer.data.layouts import Learns, reading_of
from services.trainer.data.mapping import example_of
from services.trainer.data.raw import RawRow


def mapped(values: dict[str, object], learns: Learns = "answers", **given: Any) -> Row:
    settings = DatasetSettings.model_validate({"reference": "x", **given})
    reading = reading_of(settings, [values], learns)
    return example_of(RawRow("a place", values), "row-1", settings, reading).row


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
        mapped({"question": "Why?", "answer": "So."}, columns={"prompt": "ask", "completion": "answer"})
    assert raised.value.field == "dataset.columns.prompt"
    assert raised.value.message == "none of the 2 columns is named 'ask'"


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"prompt": " ", "completion": "x"}, "dataset.columns.prompt", "empty"),
        ({"prompt": "x", "completion": ""}, "dataset.columns.completion", "empty"),
        ({"prompt": "x", "completion": None}, "dataset.columns.completion", "null"),
        ({"prompt": ["x"], "completion": "x"}, "dataset.columns.prompt", "is text"),
        ({"prompt": {"x": 1}, "completion": "x"}, "dataset.columns.prompt", "an object"),
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
        (["a", "b"], "a turn in 'chat' is text"),
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


def test_alpaca_rows_have_their_input_after_the_instruction_and_their_history_before() -> None:
    row = mapped({"instruction": "Which mood?", "input": "Late again.", "output": "bad", "history": [["Hi", "Hello"]]})
    assert turns(row) == [("user", "Hi"), ("assistant", "Hello"), ("user", "Which mood?\nLate again.")]
    assert turns(mapped({"instruction": "Which mood?", "input": " ", "output": "bad"})) == [("user", "Which mood?")]


def test_an_input_that_says_there_is_none_is_none_and_a_history_may_be_json() -> None:
    row = mapped({"instruction": "a", "input": "<noinput>", "output": "b", "history": '[["c", "d"]]'})
    assert turns(row) == [("user", "c"), ("assistant", "d"), ("user", "a")]


def test_a_dotted_path_leads_into_objects_and_lists() -> None:
    columns = {"prompt": "instruction", "input": "instances.0.input", "completion": "instances.0.output"}
    row = mapped({"instruction": "Add.", "instances": [{"input": "1, 2", "output": "3"}]}, columns=columns)
    assert (turns(row), row.completion) == ([("user", "Add.\n1, 2")], "3")


def test_content_in_parts_is_read_as_its_text_and_other_parts_are_refused() -> None:
    part = {"type": "text", "text": "Open?"}
    chat = [
        {"role": "user", "content": [part]},
        {"role": "assistant", "content": ["Un", {"type": "text", "text": "til six."}]},
    ]
    assert mapped({"messages": chat}).completion == "Until six."
    chat[0] = {"role": "user", "content": [part, {"type": "image_url", "image_url": {"url": "x"}}]}
    with pytest.raises(RowFault, match="a part that is not text"):
        mapped({"messages": chat})


def test_roles_in_capitals_and_under_other_names_are_understood() -> None:
    chat = [{"from": "System", "value": "s"}, {"from": "Human", "value": "a"}, {"from": "ChatGPT", "value": "b"}]
    row = mapped({"conversations": chat})
    assert turns(row) == [("system", "s"), ("user", "a")]


def test_a_blank_system_turn_is_left_out_and_the_data_sets_own_applies() -> None:
    chat = [("system", " "), ("user", "a"), ("assistant", "b")]
    values: dict[str, object] = {"messages": [{"role": role, "content": text} for role, text in chat]}
    assert turns(mapped(values)) == [("user", "a")]
    assert turns(mapped(values, system_prompt="Be kind."))[0] == ("system", "Be kind.")


CALL = {"name": "stock", "arguments": {"item": "lamp"}}
WRITTEN = {"type": "function", "function": CALL}


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [WRITTEN]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "stock", "arguments": '{"item": "lamp"}'}}]},
        {"role": "assistant", "content": "", "function_call": {"name": "stock", "arguments": '{"item": "lamp"}'}},
        {"from": "function_call", "value": '{"name": "stock", "arguments": {"item": "lamp"}}'},
    ],
)
def test_tool_calls_in_every_usual_form_become_openais(turn: dict[str, Any]) -> None:
    said = [
        {"from": "human", "value": "Any?"},
        turn,
        {"from": "observation", "value": "4"},
        {"from": "gpt", "value": "Four."},
    ]
    row = mapped({"conversations": said, "tools": '[{"name": "stock", "parameters": {}}]'})
    assert row.messages[1].tool_calls == (WRITTEN,)
    assert row.messages[2].role == "tool"
    assert row.tools == ({"type": "function", "function": {"name": "stock", "parameters": {}}},)


@pytest.mark.parametrize("name", ["arguments", "parameters", "args", "input"])
def test_the_arguments_of_a_call_have_the_names_of_four_families(name: str) -> None:
    turn = {"role": "assistant", "tool_calls": [{"name": "stock", name: {"item": "lamp"}}]}
    assert mapped({"messages": [{"role": "user", "content": "Any?"}, turn]}).tool_calls == (WRITTEN,)


@pytest.mark.parametrize(
    ("said", "role"),
    [("chatbot", "assistant"), ("Bard", "assistant"), ("function-call", "assistant"), ("Human:", "user"), ("tool response", "tool")],
)  # fmt: skip
def test_roles_are_known_in_many_spellings(said: str, role: str) -> None:
    value = json.dumps(CALL) if "call" in said else "x"
    chat = [{"from": "human", "value": "a"}, {"from": said, "value": value}, {"from": "gpt", "value": "b"}]
    assert mapped({"conversations": chat}).messages[1].role == role


def test_a_chat_that_ends_with_another_role_names_it() -> None:
    chat = [{"from": "human", "value": "a"}, {"from": "narrator", "value": "b"}]
    with pytest.raises(RowFault, match="but with a turn of role 'narrator'"):
        mapped({"conversations": chat})


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ({"role": "assistant", "tool_calls": [{"name": "x", "kwargs": {"a": 1}}]}, "not under one of the names"),
        ({"role": "assistant", "tool_calls": [{"name": "x", "args": {}, "input": {}}]}, "not under one of the names"),
        ({"role": "assistant", "content": "x", "tool_calls": float("nan")}, "tool call that is NaN"),
        ({"role": "assistant", "content": "x", "train_detail": [{"train": False}]}, "as a whole or not at all"),
        ({"role": "user", "content": "x", "training_detail": [{"train": True}]}, "as a whole or not at all"),
        ({"role": "assistant", "content": "x", "value": "y"}, "two different texts"),
        ({"role": "tool", "content": {"left": 4}}, "is an object, not text"),
        ({"role": "user", "content": [{"type": "tool_use", "name": "x"}]}, r"not text \(tool_use\)"),
        ({"from": "function_call", "value": "stock(lamp)"}, "function_call"),
        ({"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]}, "without a name"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "x", "arguments": "{"}}]}, "not JSON"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "x", "arguments": {"n": float("nan")}}}]}, "NaN"),
        ({"role": "user", "content": "x", "tool_calls": [WRITTEN]}, "only an assistant"),
        ({"role": "assistant", "content": "x", "weight": 0.5}, "neither 0 nor 1"),
        ({"role": "assistant", "content": "x", "loss_mask": "0"}, "neither 0 nor 1"),
        ({"role": "assistant", "content": "x", "masked": "yes"}, "neither 0 nor 1"),
        ({"role": "assistant", "content": "x", "mask": 1}, "named mask, which is not read"),
        ({"role": "assistant", "content": "x", "mask": 0}, "named mask, which is not read"),
        ({"role": "assistant", "content": "x", "channel": "analysis"}, "named channel"),
        ({"role": "assistant", "content": "x", "reasoning_details": [{"text": "hm"}]}, "named reasoning_details"),
        ({"role": "user", "content": "x", "images": ["cat.png"]}, "named images"),
    ],
)
def test_turns_that_would_lose_something_are_refused(turn: dict[str, Any], words: str) -> None:
    with pytest.raises(RowFault, match=words):
        mapped({"messages": [{"role": "user", "content": "a"}, turn, {"role": "assistant", "content": "b"}]})


def test_a_tools_turn_keeps_which_call_it_answers() -> None:
    result = {"role": "tool", "name": "stock", "tool_call_id": "call-1", "content": "4"}
    chat = [{"role": "user", "content": "a", "name": "Ann"}, result, {"role": "assistant", "content": "b"}]
    user, found = mapped({"messages": chat}).messages
    assert (found.name, found.tool_call_id, user.name) == ("stock", "call-1", None)


def test_a_turns_weight_and_thoughts_are_kept() -> None:
    chat: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "weight": 0},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d", "reasoning_content": "Hm."},
    ]
    row = mapped({"messages": chat})
    assert [turn.weight for turn in row.messages] == [1, 0, 1]
    masked = [{**turn, "masked": turn["content"] == "b"} for turn in chat]
    assert [turn.weight for turn in mapped({"messages": [{**turn, "weight": 1} for turn in masked]}).messages] == [1, 0, 1]
    assert (row.weight, row.reasoning) == (1, "Hm.")


@pytest.mark.parametrize("name", ["weight", "train", "training", "trainable", "loss", "loss_scale", "loss_mask"])
@pytest.mark.parametrize("no", [0, 0.0, False])
def test_a_turn_that_is_not_learnt_may_say_so_under_the_names_of_many_programs(name: str, no: object) -> None:
    """LoongForge#89 and verl have loss_mask, axolotl train and training, ms-swift loss."""
    chat = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", name: no},
        {"role": "user", "content": "c"},
    ]
    row = mapped({"messages": [*chat, {"role": "assistant", "content": "d", name: not no}]})
    assert ([turn.weight for turn in row.messages], row.weight) == ([1, 0, 1], 1)


THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}


@pytest.mark.parametrize(
    "fields",
    [
        {"content": "b", "thought": "Hm."},
        {"content": [THOUGHT, {"type": "text", "text": "b"}]},  # Mistral's Magistral
        {"content": "b", "reasoning": "Hm.", "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
        {"content": "b", "reasoning_content": "Hm.", "channel": "final", "images": []},
    ],
)
def test_thoughts_are_read_in_many_forms(fields: dict[str, Any]) -> None:
    row = mapped({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", **fields}]})
    assert (row.completion, row.reasoning) == ("b", "Hm.")


@pytest.mark.parametrize(
    ("values", "reference"),
    [
        ({"prompt": "a"}, ""),
        ({"prompt": "a", "solution": None}, ""),
        ({"prompt": [{"role": "user", "content": "a"}], "answer": 42}, "42"),
        ({"messages": [{"role": "user", "content": "a"}]}, ""),
        ({"messages": [{"role": "user", "content": "a"}], "ground_truth": "42"}, "42"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "solution": "c"}, "b"),
        ({"prompt": "a", "completion": "b"}, "b"),
    ],
)
def test_a_prompt_is_a_row_with_what_its_answers_are_compared_with(values: dict[str, Any], reference: str) -> None:
    row = mapped(values, learns="prompts")
    assert turns(row) == [("user", "a")]
    assert (row.completion, row.answered) == (reference, bool(reference))


def test_a_chat_that_asks_nothing_is_no_prompt() -> None:
    with pytest.raises(RowFault, match="does not end with an assistant's answer"):
        mapped({"messages": [{"role": "system", "content": "a"}]}, learns="prompts")


def test_nulls_that_a_table_fills_in_are_absent() -> None:
    chat = [
        {"role": "user", "content": "a", "tool_calls": None, "from": None},
        {"role": "assistant", "content": "b", "weight": None},
    ]
    assert mapped({"messages": chat}).completion == "b"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "NaN or an infinity"),
        (float("inf"), "NaN or an infinity"),
        (b"text", "bytes"),
        (datetime.date(2030, 1, 1), "a date or time"),
        ("half \ud83d", "half of a character"),
    ],
)
def test_values_that_are_no_text_are_named_by_their_kind(value: object, words: str) -> None:
    with pytest.raises(RowFault, match=words):
        mapped({"prompt": "a", "completion": value})


def test_a_prompt_and_a_completion_may_be_lists_of_turns() -> None:
    row = mapped(
        {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]}
    )  # fmt: skip
    assert (turns(row), row.completion) == ([("user", "a")], "b")
