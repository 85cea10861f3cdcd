"""What is thought is learnt behind the prompt that opens a thought, or the row is refused by its cause."""

from pathlib import Path

import pytest

from schemas.lines import Row
from services.language_models.chat_format.chat import ChatFault
from services.language_models.chat_format.written import visible
from tests.chat_templates import CHATML, QWEN3, QWEN35, R1, R1_UNOPENED, TOOLS
from tests.supervised import answers, call, chat_of, encoded, prompt, row, turn
from tests.tiny_tokenizers import END

WRITTEN = row("user: 2+2?", "assistant: <think>\ntwo twos\n</think>\n\n4")
FIELD = row("user: 2+2?", turn("assistant: 4", reasoning="two twos"))
GENERATED = row("user: 2+2?", "assistant: two twos\n</think>\n\n4")
NONE = row("user: 2+2?", "assistant: 4")
THOUGHT = "two twos\n</think>\n\n4" + END


@pytest.mark.parametrize("one", [WRITTEN, FIELD, GENERATED])
@pytest.mark.parametrize("template", [R1, QWEN35])
def test_a_thought_is_learnt_behind_the_prompt_that_opens_it(tmp_path: Path, template: str, one: Row) -> None:
    chat = chat_of(tmp_path, template)
    tokens = encoded(chat, one)
    assert prompt(chat, tokens).endswith("<think>\n")
    assert answers(chat, one) == [THOUGHT]
    assert chat.prompts([one]) == [tokens.prompt]


@pytest.mark.parametrize("one", [WRITTEN, FIELD])
def test_a_template_that_strips_the_thought_of_the_answer_itself_still_learns_it(tmp_path: Path, one: Row) -> None:
    chat = chat_of(tmp_path, R1_UNOPENED)
    assert prompt(chat, encoded(chat, one)).endswith("<A>")
    assert answers(chat, one) == ["<think>\n" + THOUGHT]


@pytest.mark.parametrize("one", [WRITTEN, FIELD])
def test_a_thought_is_learnt_through_a_template_that_writes_it(tmp_path: Path, one: Row) -> None:
    assert answers(chat_of(tmp_path, QWEN3), one) == ["<think>\n" + THOUGHT]


def test_an_answer_without_a_thought_is_refused_where_the_prompt_opens_one_that_no_template_closes(tmp_path: Path) -> None:
    with pytest.raises(ChatFault, match=r"generation prompt .*<think>.* the answer has none") as refused:
        encoded(chat_of(tmp_path, R1), NONE)
    assert "reasoning_content" in refused.value.remedy


@pytest.mark.parametrize(("template", "said"), [(QWEN35, "\n</think>\n\n4"), (QWEN3, "<think>\n\n</think>\n\n4")])
def test_an_empty_thought_that_the_template_writes_is_learnt(tmp_path: Path, template: str, said: str) -> None:
    assert answers(chat_of(tmp_path, template), NONE) == [said + END]


def test_an_empty_thought_is_no_part_of_the_answer_that_is_compared(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, QWEN3)
    assert chat.text(encoded(chat, NONE).completion) == "4"


@pytest.mark.parametrize("tag", ["<thought>\n", "<reasoning>", "[THINK]\n"])
def test_other_openers_than_think_are_found_by_the_template(tmp_path: Path, tag: str) -> None:
    closed = R1.replace("<think>\n", tag)
    one = row("user: 2+2?", f"assistant: {tag}two twos</think>4")
    assert answers(chat_of(tmp_path, closed), one) == ["two twos</think>4" + END]


def prompt_ends(opener: str) -> str:
    """A template whose generation prompt ends with that."""
    return CHATML.replace("assistant\n{% endif", f"assistant\n{opener}{{% endif")


@pytest.mark.parametrize(
    ("opener", "said", "learnt"),
    [
        (
            "<think>\n\n</think>\n\n",
            "4",
            "4",
        ),  # QwenLM/Qwen3#1420, modelscope/ms-swift#7368: the prompt ends an empty thought
        ("</think>", "4", "4"),
        ("<think>\n\n</think>\n\n", "<think>\n\n</think>\n\n4", "4"),
        ("<thinking>\n", "<thinking>\nhm\n</thinking>\n4", "hm\n</thinking>\n4"),
        ("[THINK]", "hm[/THINK]4", "hm[/THINK]4"),
    ],
)
def test_an_answer_is_learnt_behind_the_thought_that_the_prompt_opens_or_ends(
    tmp_path: Path, opener: str, said: str, learnt: str
) -> None:
    assert answers(chat_of(tmp_path, prompt_ends(opener)), row("user: 2+2?", f"assistant: {said}")) == [learnt + END]


@pytest.mark.parametrize(
    ("opener", "said", "what"),
    [
        ("<think>\n\n</think>\n\n", "<think>\nhm\n</think>\n\n4", "ends the thought .* the answer has one"),
        ("</think>", "hm\n</think>4", "ends the thought .* the answer has one"),
        ("[THINK]", "hm</think>4", "opens a thought .* the answer has none"),
        ("<|thought|>", "4", "which the answered chat lacks"),
    ],
)
def test_a_thought_that_does_not_go_on_as_the_prompt_ends_is_refused(
    tmp_path: Path, opener: str, said: str, what: str
) -> None:
    with pytest.raises(ChatFault, match=what):
        encoded(chat_of(tmp_path, prompt_ends(opener)), row("user: 2+2?", f"assistant: {said}"))


def test_a_thought_in_its_field_is_learnt_behind_a_prompt_that_opens_it_though_the_template_writes_no_thought(
    tmp_path: Path,
) -> None:
    assert answers(chat_of(tmp_path, prompt_ends("<think>\n")), FIELD) == [THOUGHT]


def test_an_empty_thought_that_only_the_history_has_does_not_hide_the_one_that_the_prompt_opens(tmp_path: Path) -> None:
    """NVIDIA-NeMo/Automodel#3738: Nemotron writes <think></think> before an answer without a thought."""
    shut = "{% if m.role == 'assistant' and '</think>' not in m.content %}<think></think>{% endif %}{{ m.content }}"
    template = CHATML.replace("message", "m").replace("ms", "messages").replace("{{ m['content'] }}", shut)
    template = template.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    assert answers(chat_of(tmp_path, template), row("user: 2+2?", "assistant: <think>two twos</think>4")) == [
        "two twos</think>4" + END
    ]
    with pytest.raises(ChatFault, match=r"opens a thought .* the answer has none"):
        encoded(chat_of(tmp_path, template), NONE)


def test_a_tool_call_behind_an_opened_thought_is_refused_by_name(tmp_path: Path) -> None:
    template = TOOLS.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    with pytest.raises(ChatFault, match="tool_calls"):
        encoded(chat_of(tmp_path, template), row("user: Lamps?", turn("assistant: ", tool_calls=(call("stock"),))))


def test_the_earlier_answers_of_a_chat_are_counted_where_their_thoughts_are_left_out(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, R1)
    one = row("user: 1+1?", "assistant: <think>\none one\n</think>\n\n2", *WRITTEN.messages, WRITTEN.answer)
    tokens = encoded(chat, one)
    assert answers(chat, one) == [THOUGHT]
    assert "<A>\n\n2" in prompt(chat, tokens)
    assert tokens.unlearnt == 1


@pytest.mark.parametrize("template", [CHATML, QWEN3, QWEN35, R1, R1_UNOPENED])
def test_a_thought_without_an_end_is_refused(tmp_path: Path, template: str) -> None:
    with pytest.raises(ChatFault, match="thought of an answer has no end"):
        encoded(chat_of(tmp_path, template), row("user: 2+2?", "assistant: <think>\ntwo tw"))


@pytest.mark.parametrize("template", [QWEN3, QWEN35, R1, R1_UNOPENED])
@pytest.mark.parametrize("said", ["<think>\n\n</think>\n\n4", "<think>\na</think>b<think>c</think>d"])
def test_a_thought_is_opened_once_and_kept_as_it_is(tmp_path: Path, template: str, said: str) -> None:
    chat = chat_of(tmp_path, template)
    tokens = encoded(chat, row("user: 2+2?", f"assistant: {said}"))
    opened = prompt(chat, tokens).rpartition("<think>\n")[1]
    text = opened + chat.tokenizer.decode(tokens.completion)
    assert text.removesuffix(END).replace("\n", "") == said.replace("\n", "")


def test_a_thought_in_a_plain_template_is_text_like_any_other(tmp_path: Path) -> None:
    assert answers(chat_of(tmp_path, CHATML), WRITTEN) == ["<think>\n" + THOUGHT]


@pytest.mark.parametrize(
    ("said", "shown"), [("<think>\na\n</think>\n\n4", "4"), ("a</think> 4", "4"), ("4", "4"), (" a < b ", " a < b ")]
)
def test_what_is_compared_is_the_text_behind_the_thought(said: str, shown: str) -> None:
    assert visible(said) == shown
