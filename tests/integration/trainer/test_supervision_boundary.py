"""The prompt ends where generation begins, in the tokens of the whole chat."""

from pathlib import Path

import pytest

from schemas.lines import Message
from services.language_models.chat_format.chat import Chat, ChatFault
from tests.chat_templates import ALWAYS_OPEN, CHATML, LLAMA2, TRAILING_SPACE, WITHOUT_PROMPT
from tests.supervised import answers, call, chat_of, encoded, prompt, row, turn
from tests.tiny_tokenizers import END

ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def pieces(chat: Chat, ids: list[int]) -> list[str]:
    return list(chat.tokenizer.convert_ids_to_tokens(ids))


def test_an_answer_has_no_word_start_that_the_chat_has_not(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, ZEPHYR, llama2=True)
    tokens = encoded(chat, row("user: is it open?", "assistant: no"))
    assert pieces(chat, tokens.completion) == ["n", "o", "</s>"]
    assert chat.prompts([row("user: is it open?", "assistant: no")]) == [tokens.prompt]


def test_a_space_before_the_answer_is_generated_with_its_first_word(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, LLAMA2, llama2=True)
    tokens = encoded(chat, row("user: is it open?", "assistant: no"))
    assert pieces(chat, tokens.completion) == ["▁no", "</s>"]
    assert chat.text(tokens.completion) == "no"


def test_every_answer_of_a_chat_has_the_tokens_that_it_has_in_the_chat(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, LLAMA2, llama2=True)
    tokens = encoded(chat, row("user: is it open?", "assistant: no", "user: is it late?", "assistant: no"))
    assert pieces(chat, tokens.completion) == ["▁no", "</s>"] * 2
    assert tokens.unlearnt == 0


def test_a_prompt_whose_last_space_joins_the_answer_is_refused_in_words(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, TRAILING_SPACE, llama2=True)
    with pytest.raises(ChatFault, match="joins the end of the prompt") as refused:
        encoded(chat, row("user: is it open?", "assistant: no"))
    assert "does not end in a space" in refused.value.remedy


def test_a_prompt_that_ends_in_a_space_is_right_where_no_token_spans_it(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, TRAILING_SPACE)
    tokens = encoded(chat, row("user: Open?", "assistant: No."))
    assert prompt(chat, tokens) == "USER: Open? ASSISTANT: "
    assert answers(chat, row("user: Open?", "assistant: No.")) == ["No." + END]


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        (WITHOUT_PROMPT, "<|im_start|>user\nOpen?<|im_end|>\n<|im_start|>assistant\n"),
        (WITHOUT_PROMPT.replace("\n{{ m.content", ": {{ m.content"), "<|im_start|>user: Open?<|im_end|>\n<|im_start|>assistant:"),
        ("{% for m in messages %}### {{ m.role | title }}:\n{{ m.content }}{{ eos_token }}\n\n{% endfor %}\n", "### User:\nOpen?"),
        ("{% for m in messages %}\n{% if m.role == 'user' %}{{ 'Q: ' + m.content }}{% else %}{{ '🤖\\n' + m.content + eos_token }}{% endif %}{% endfor %}", "Q: Open?🤖\n"),
        ("{% for m in messages %}{{ m.role + \"'s turn:\\n\" + m.content + '<|im_end|>\\n' }}{% endfor %}", "user's turn:\nOpen?<|im_end|>\nassistant's turn:\n"),
    ],
)  # fmt: skip
def test_the_header_of_an_answer_belongs_to_the_prompt_if_the_template_ignores_that_one_is_asked_for(
    tmp_path: Path, template: str, wanted: str
) -> None:
    chat = chat_of(tmp_path, template)
    one = row("user: Open?", "assistant: No.")
    tokens = encoded(chat, one)
    assert prompt(chat, tokens).startswith(wanted)
    assert answers(chat, one)[0].strip() == "No." + END
    assert chat.prompts([one]) == [tokens.prompt]


def test_the_saved_template_asks_for_the_answer_so_that_any_server_does(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    chat_of(tmp_path, WITHOUT_PROMPT).save(tmp_path / "adapter")
    asked = [{"role": "user", "content": "Open?"}]
    served = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    text = served.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nOpen?<|im_end|>\n<|im_start|>assistant\n"
    assert not served.apply_chat_template(asked, tokenize=False).endswith("assistant\n")
    assert Chat(tmp_path / "adapter").template_sha256 == chat_of(tmp_path, WITHOUT_PROMPT).template_sha256


def test_a_template_that_always_opens_the_next_answer_is_learnt_up_to_the_end_of_the_answer(tmp_path: Path) -> None:
    one = row("user: Hi", "assistant:  Hello \n")
    chat = chat_of(tmp_path, ALWAYS_OPEN)
    assert prompt(chat, encoded(chat, one)) == f"<H>user</H>Hi{END}<H>assistant</H>"
    assert answers(chat, one) == ["Hello" + END]


def test_a_generation_prompt_with_more_white_space_than_the_answered_chat_is_the_one_that_is_served(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, CHATML.replace("assistant\n{% endif", "assistant\n\n{% endif"))
    one = row("user: Hi", "assistant: Hello.")
    tokens = encoded(chat, one)
    assert prompt(chat, tokens).endswith("assistant\n\n")
    assert answers(chat, one) == ["Hello." + END]


def test_a_template_that_ends_answers_twice_is_learnt_up_to_the_first_end(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, CHATML.replace("<|im_end|>\n{% endfor", "<|im_end|>{{ eos_token }}\n{% endfor"))
    assert answers(chat, row("user: Hi", "assistant: Hello.")) == ["Hello." + END]


def test_an_end_token_of_the_generation_settings_ends_answers(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, WITHOUT_PROMPT.replace("<|im_end|>", "<|pad|>"))
    (tmp_path / "tokenizer" / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    assert answers(chat, row("user: Hi", "assistant: Hello.", "user: Bye", "assistant: Bye.")) == [
        "Hello.<|pad|>",
        "Bye.<|pad|>",
    ]


def test_an_end_that_ends_no_generation_is_learnt_with_the_end_behind_it(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, CHATML.replace("<|im_end|>", "</end>"))
    one = row("user: Hi", "assistant: Hello.")
    assert answers(chat, one) == ["Hello.</end>" + END]
    assert chat.text(encoded(chat, one).completion) == "Hello."


def test_a_template_that_counts_its_turns_is_refused(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, "{{ messages | length }}" + CHATML)
    with pytest.raises(ChatFault, match="changes earlier turns"):
        encoded(chat, row("user: Hi", "assistant: Hello."))


def test_a_template_that_wants_a_system_turn_gets_its_header_too(tmp_path: Path) -> None:
    wants = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}"
    chat = chat_of(tmp_path, wants + WITHOUT_PROMPT)
    assert prompt(chat, encoded(chat, row("system: Be kind.", "user: Hi", "assistant: Hello."))).endswith("assistant\n")


def test_turns_after_which_the_template_opens_no_answer_are_refused(tmp_path: Path) -> None:
    chat = chat_of(
        tmp_path, CHATML.replace("if add_generation_prompt", "if add_generation_prompt and messages[-1].role == 'user'")
    )
    with pytest.raises(ChatFault, match="no generation prompt after these turns"):
        encoded(chat, row("user: Lamps?", "tool: 4 left", "assistant: Four."))


ENDED = "<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("writes", "one"),
    [
        (f"{{{{ m.reasoning_content }}}}</think>{ENDED}{{{{ m.content }}}}", turn("assistant: b", reasoning="hm")),
        (
            f"{{% for c in m.tool_calls %}}{{{{ c.function | tojson }}}}{ENDED}{{% endfor %}}",
            turn("assistant: ", tool_calls=(call("f"), call("f"))),
        ),
        (
            f"{{{{ m.content }}}}{ENDED}{{{{ m.tool_calls[0].function | tojson }}}}",
            turn("assistant: b", tool_calls=(call("f"),)),
        ),
    ],
    ids=["a thought", "one of two calls", "the text before a call"],
)
def test_an_end_that_the_template_writes_within_an_answer_refuses_the_row(
    tmp_path: Path, writes: str, one: Message
) -> None:
    """What stands behind the first end was cut away; huggingface/trl#7039 tells of models with several."""
    wanted = "m.reasoning_content or m.tool_calls"
    template = f"{{% for m in messages %}}<|im_start|>{{{{ m.role }}}}\n{{% if {wanted} %}}{writes}{{% else %}}{{{{ m.content }}}}{{% endif %}}<|im_end|>\n{{% endfor %}}"
    template += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    chat = chat_of(tmp_path, template)
    with pytest.raises(ChatFault, match=r"<\|im_end\|>.* within the answer"):
        encoded(chat, row("user: a", one))
    assert answers(chat, row("user: a", one, "user: c", "assistant: d")) == ["d" + END]
