"""A tool's turn says which call it answers, and calls are written in the form that the template takes."""

from pathlib import Path
from typing import Any

import pytest

from services.language_models.chat_format.chat import ChatFault
from tests.chat_templates import TOOLS
from tests.supervised import answers, call, chat_of, encoded, prompt, row, turn
from tests.tiny_tokenizers import END

CALLED = {**call("stock", item="lamp"), "id": "abcdefghi"}
MISTRAL = (
    "{% for m in messages %}{% if m.tool_calls %}{% for c in m.tool_calls %}{% if c.id is undefined or c.id | length != 9 %}"
    "{{ raise_exception('Tool call IDs should be 9 characters') }}{% endif %}[TOOL_CALLS]{{ c | tojson }}{% endfor %}<|im_end|>"
    "{% elif m.role == 'tool' %}{% if m.tool_call_id is undefined %}{{ raise_exception('Tool results need an id') }}{% endif %}"
    "[TOOL_RESULTS]{{ m.tool_call_id }} {{ m.content }}{% elif m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% else %} {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)
"""It wants an id of nine characters in calls and results (Mistral, huggingface/transformers#30621)."""
NAMED = TOOLS.replace("{{ m.content or '' }}", "{% if m.role == 'tool' %}{{ m.name }}: {% endif %}{{ m.content or '' }}")
"""It writes the name of the function before its result (Gemma 3, gpt-oss)."""
TEXT_ARGUMENTS = TOOLS.replace("call.function | tojson", "call.function.name + call.function.arguments")
"""It takes the arguments as text (DeepSeek V3, huggingface/transformers#45419)."""


def chat(call_id: str = "abcdefghi") -> tuple[Any, ...]:
    result = turn("tool: 4 left", name="stock", tool_call_id=call_id)
    return "user: Lamps?", turn("assistant: ", tool_calls=({**CALLED, "id": call_id},)), result, "assistant: Four."


def test_the_id_of_a_call_is_written_with_its_result(tmp_path: Path) -> None:
    mistral = chat_of(tmp_path, MISTRAL)
    first, last = answers(mistral, row(*chat()))
    assert first.startswith("[TOOL_CALLS]")
    assert last == f" Four.{END}"
    text = mistral.tokenizer.decode(encoded(mistral, row(*chat()), "last").prompt)
    assert "[TOOL_RESULTS]abcdefghi 4 left" in text


def test_an_id_that_the_template_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(ChatFault, match="Tool call IDs should be 9 characters"):
        encoded(chat_of(tmp_path, MISTRAL), row(*chat("1")))


def test_the_name_of_a_function_is_written_with_its_result(tmp_path: Path) -> None:
    named = chat_of(tmp_path, NAMED)
    assert "tool\nstock: 4 left" in prompt(named, encoded(named, row(*chat()), "last"))


@pytest.mark.parametrize("field", ["name", "tool_call_id"])
def test_a_control_token_in_either_is_refused(tmp_path: Path, field: str) -> None:
    with pytest.raises(ChatFault, match="control token"):
        encoded(chat_of(tmp_path, NAMED), row("user: a", turn("tool: b", **{field: END}), "assistant: c"))


def test_arguments_are_text_where_the_template_takes_only_that(tmp_path: Path) -> None:
    assert (
        answers(chat_of(tmp_path, TEXT_ARGUMENTS), row(*chat()))[0]
        == f'<tool_call>stock{{"item": "lamp"}}</tool_call>{END}'
    )
