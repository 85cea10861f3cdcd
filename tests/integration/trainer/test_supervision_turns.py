"""Every answer of a chat is learnt as it would be served, or counted as not learnt."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.lines import Message
from services.language_models.chat_format.alignment import Alignment
from services.language_models.chat_format.chat import Chat
from services.language_models.chat_format.tokens import answers_of
from tests.chat_templates import ALWAYS_OPEN, CHATML, LAST_SYSTEM, LLAMA2, QWEN3, TOOLS, WITHOUT_END, WITHOUT_PROMPT
from tests.supervised import answers, call, chat_of, encoded, learnt, row, turn
from tests.tiny_tokenizers import END

SHOP = ("user: Open?", "assistant: Until six.", "user: On Sunday?", "assistant: Closed.")


@pytest.mark.parametrize("template", [CHATML, WITHOUT_PROMPT, ALWAYS_OPEN])
def test_all_answers_of_a_chat_are_learnt_each_with_its_end(tmp_path: Path, template: str) -> None:
    chat = chat_of(tmp_path, template)
    tokens = encoded(chat, row(*SHOP))
    assert learnt(chat, tokens) == ["Until six." + END, "Closed." + END]
    assert (tokens.answers, tokens.unlearnt) == (2, 0)


def test_the_last_answer_alone_is_learnt_where_it_is_asked_for(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, CHATML)
    tokens = encoded(chat, row(*SHOP), "last")
    assert learnt(chat, tokens) == ["Closed." + END]
    assert (tokens.answers, tokens.unlearnt) == (1, 1)


def test_an_answer_of_weight_0_is_context(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, CHATML)
    tokens = encoded(chat, row(SHOP[0], turn(SHOP[1], weight=0), *SHOP[2:]))
    assert learnt(chat, tokens) == ["Closed." + END]
    assert answers_of([tokens]) == {"answers_learnt": 1.0, "answers_not_learnt": 1.0}


def test_a_last_answer_of_weight_0_is_context_and_the_one_before_is_learnt(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, CHATML)
    tokens = encoded(chat, row(*SHOP[:3], turn(SHOP[3], weight=0)))
    assert (learnt(chat, tokens), tokens.unlearnt) == (["Until six." + END], 1)


def test_answers_between_tool_calls_are_learnt(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, TOOLS)
    asked = turn("assistant: ", tool_calls=(call("stock", item="lamp"),))
    found = answers(chat, row("user: Lamps?", asked, "tool: 4 left", "assistant: Four."))
    assert found == ['<tool_call>{"name": "stock", "arguments": {"item": "lamp"}}</tool_call>' + END, "Four." + END]


def test_two_answers_in_a_row_are_both_learnt(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, CHATML)
    assert answers(chat, row("user: Hi", "assistant: Hello.", "assistant: Welcome.")) == ["Hello." + END, "Welcome." + END]


def test_a_greeting_before_the_first_question_is_counted_as_not_learnt(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, CHATML)
    tokens = encoded(chat, row("assistant: Hello.", "user: Open?", "assistant: Yes."))
    assert (learnt(chat, tokens), tokens.unlearnt) == (["Yes." + END], 1)


def test_answers_that_the_history_changes_are_counted_as_not_learnt(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, QWEN3)
    tokens = encoded(chat, row(*SHOP))
    assert learnt(chat, tokens) == ["<think>\n\n</think>\n\nClosed." + END]
    assert (tokens.answers, tokens.unlearnt) == (1, 1)


def test_answers_whose_prompt_the_history_changes_are_counted_as_not_learnt(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, LAST_SYSTEM)
    tokens = encoded(chat, row("system: Be kind.", *SHOP))
    assert (learnt(chat, tokens), tokens.unlearnt) == ([" Closed." + END], 1)


def test_without_an_end_in_the_template_the_last_answer_gets_one(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, WITHOUT_END)
    assert answers(chat, row(*SHOP)) == [" Until six.", " Closed." + END]


def test_an_answer_that_the_cut_takes_away_counts_as_not_learnt(tmp_path: Path) -> None:
    tokens = encoded(chat_of(tmp_path, CHATML), row(*SHOP))
    cut = tokens.cut(len(tokens) - len("Closed.") - 1)
    assert (cut.answers, cut.unlearnt) == (1, 1)


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Chat]:
    """Return chat formats whose history leaves answers as they are, by their templates."""
    templates = (CHATML, WITHOUT_PROMPT, LLAMA2, TOOLS)
    return {template: chat_of(tmp_path_factory.mktemp("format"), template) for template in templates}


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="<|"), min_size=1, max_size=20).filter(str.strip)


@given(st.lists(st.tuples(TEXTS, TEXTS, st.booleans()), min_size=1, max_size=4))
def test_the_learnt_text_is_exactly_the_answers(formats: dict[str, Chat], chats: list[tuple[str, str, bool]]) -> None:
    turns = [
        one
        for asked, said, wanted in chats
        for one in (Message(role="user", content=asked), Message(role="assistant", content=said, weight=int(wanted)))
    ]
    for template, chat in formats.items():
        tokens = encoded(chat, row(*turns))
        before = " " if template == LLAMA2 else ""
        assert learnt(chat, tokens) == [f"{before}{said}{END}" for _, said, wanted in chats if wanted]
        assert tokens.answers + tokens.unlearnt == len(chats)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3))
def test_the_prompt_in_training_is_the_prompt_at_generation(formats: dict[str, Chat], chats: list[tuple[str, str]]) -> None:
    turns = [
        one
        for asked, said in chats
        for one in (Message(role="user", content=asked), Message(role="assistant", content=said))
    ]
    for chat in formats.values():
        tokens = encoded(chat, row(*turns), "last")
        assert chat.prompts([turns[:-1]]) == [tokens.prompt]


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=2, max_size=4))
def test_offsets_find_the_answers_that_the_chats_as_served_have(
    formats: dict[str, Chat], chats: list[tuple[str, str]]
) -> None:
    one = row(*[turn(f"{role}: {said}") for pair in chats for role, said in zip(("user", "assistant"), pair, strict=True)])
    for chat in formats.values():
        by_offsets = encoded(chat, one)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Alignment, "_in_history", lambda *_: None)
            assert encoded(chat, one) == by_offsets
