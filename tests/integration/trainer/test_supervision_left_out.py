"""Nothing of a chat is dropped in silence: a row is refused by the name of what its template does not write."""

from pathlib import Path
from typing import Any

import pytest

from schemas.lines import Row
from services.language_models.chat_format.chat import ChatFault
from tests.chat_templates import (
    CALL_OR_TEXT,
    CHATML,
    JSON_RESULTS,
    LAST_SYSTEM,
    NAME_ONLY,
    QWEN3,
    THREE_ROLES,
    TOOLS,
)
from tests.supervised import answers, call, chat_of, encoded, prompt, row, tool, turn
from tests.tiny_tokenizers import END

CALLS: dict[str, Any] = {"tool_calls": (call("stock", item="lamp"),)}
USES_TOOL = ("user: Lamps?", turn("assistant: ", **CALLS), 'tool: {"left": 4}', "assistant: Four.")


@pytest.mark.parametrize(
    ("template", "one", "named"),
    [
        (THREE_ROLES, row("user: Lamps?", "tool: 4 left", "assistant: Four."), "role tool"),
        (THREE_ROLES, row("developer: Be kind.", "user: Hi", "assistant: Hello."), "'developer'"),
        (THREE_ROLES, row("Human: Hi", "assistant: Hello."), "'Human'"),
        (THREE_ROLES, row("user: Lamps?", turn("assistant: ", **CALLS)), "tool_calls"),
        (THREE_ROLES, row("user: Lamps?", turn("assistant: Let me look.", **CALLS)), "tool_calls"),
        (CHATML, row(*USES_TOOL), "tool_calls"),
        (CHATML, row("user: Hi", "assistant: Hello.", tools=[tool("stock")]), "tools"),
        (CALL_OR_TEXT, row("user: Lamps?", turn("assistant: Let me look.", **CALLS)), "role assistant"),
        (NAME_ONLY, row("user: Lamps?", turn("assistant: ", **CALLS)), "tool_calls"),
        (THREE_ROLES.replace("'system', ", ""), row("system: Be kind.", "user: Hi", "assistant: Hello."), "'system'"),
        (CHATML.replace("['content'] }}", "['content'][:5] }}"), row("user: A long question", "assistant: Yes."), "'user'"),
        (CHATML.replace("['content'] }}", "['content'] if message.role != 'user' or '#' not in message.content }}"), row("user: #1?", "assistant: Yes."), "'user'"),
    ],
)  # fmt: skip
def test_what_a_template_leaves_out_is_named(tmp_path: Path, template: str, one: Row, named: str) -> None:
    chat = chat_of(tmp_path, template)
    with pytest.raises(ChatFault) as refused:
        encoded(chat, one)
    assert named in str(refused.value)


def test_sharegpt_names_of_a_role_are_told(tmp_path: Path) -> None:
    with pytest.raises(ChatFault, match="observation"):
        encoded(chat_of(tmp_path, THREE_ROLES), row("user: Lamps?", "tool: 4 left", "assistant: Four."))


def test_tool_calls_tools_and_results_are_written_through_a_template_that_knows_them(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, TOOLS)
    one = row(*USES_TOOL, tools=[tool("stock")])
    tokens = encoded(chat, one)
    assert '<tools>{"name": "stock"' in prompt(chat, tokens)
    assert '{"left": 4}' in chat.tokenizer.decode(tokens.ids)
    assert answers(chat, one) == [
        '<tool_call>{"name": "stock", "arguments": {"item": "lamp"}}</tool_call>' + END,
        "Four." + END,
    ]


def test_text_beside_a_tool_call_is_learnt_with_it(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, TOOLS)
    (said,) = answers(chat, row("user: Lamps?", turn("assistant: Let me look.", **CALLS)))
    assert said.startswith("Let me look.<tool_call>")


def test_several_tool_calls_of_one_turn_are_learnt(tmp_path: Path) -> None:
    both = turn("assistant: ", tool_calls=(call("stock", item="lamp"), call("price", item="lamp")))
    (said,) = answers(chat_of(tmp_path, TOOLS), row("user: Lamps?", both))
    assert "stock" in said
    assert "price" in said


def test_a_tool_call_without_arguments_is_learnt(tmp_path: Path) -> None:
    (said,) = answers(chat_of(tmp_path, TOOLS), row("user: Time?", turn("assistant: ", tool_calls=(call("clock"),))))
    assert '"clock"' in said


def test_a_result_that_is_written_as_a_json_string_is_written(tmp_path: Path) -> None:
    assert answers(chat_of(tmp_path, JSON_RESULTS), row(*USES_TOOL))[-1] == "Four." + END


def test_a_system_prompt_may_stand_elsewhere_than_first(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, LAST_SYSTEM)
    assert "Be kind." in prompt(chat, encoded(chat, row("system: Be kind.", "user: Hi", "assistant: Hello.")))


def test_a_text_that_the_template_trims_is_no_loss(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, CHATML.replace("['content'] }}", "['content'] | trim }}"))
    assert answers(chat, row("user:  Hi \n", "assistant:  Hello. ")) == ["Hello." + END]


def test_a_turn_is_missed_even_if_its_text_occurs_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(ChatFault, match="role tool"):
        encoded(chat_of(tmp_path, THREE_ROLES), row("user: Is 4 right?", "tool: 4", "assistant: 4"))


def test_a_thought_that_the_template_does_not_know_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChatFault, match="reasoning_content"):
        encoded(chat_of(tmp_path, CHATML), row("user: 2+2?", turn("assistant: 4", reasoning="two twos")))


def test_thoughts_of_the_history_may_be_left_out_as_they_are_in_serving(tmp_path: Path) -> None:
    one = row(
        "user: 2+2?",
        turn("assistant: 4", reasoning="two twos"),
        "user: 3+3?",
        turn("assistant: 6", reasoning="twice three"),
    )
    chat = chat_of(tmp_path, QWEN3)
    tokens = encoded(chat, one)
    assert answers(chat, one) == ["<think>\ntwice three\n</think>\n\n6" + END]
    assert tokens.unlearnt == 1


def test_a_prompt_is_refused_like_a_row(tmp_path: Path) -> None:
    with pytest.raises(ChatFault, match="role tool"):
        chat_of(tmp_path, THREE_ROLES).prompts([[turn("user: Lamps?"), turn("tool: 4 left")]])


def test_a_template_that_fails_is_named_by_its_error(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, CHATML.replace("['content'] }}", "['content'] + message.missing.more }}"))
    with pytest.raises(ChatFault, match="UndefinedError"):
        encoded(chat, row("user: Hi", "assistant: Hello."))


def test_one_refused_chat_does_not_spoil_the_others(tmp_path: Path) -> None:
    good, bad = row("user: Hi", "assistant: Hello."), row("tool: Hi", "assistant: Hello.")
    found = chat_of(tmp_path, THREE_ROLES).try_encode([good, bad, good])
    assert [isinstance(one, ChatFault) for one in found] == [False, True, False]
