"""What is supervised in training is exactly what has to be generated in serving."""

from pathlib import Path

import pytest

from schemas.lines import Message
from services.language_models.chat_format.chat import Chat, ChatFault, Tokens

QUESTION = (Message(role="user", content="Why?"),)


def test_prompt_and_answer_are_the_tokens_of_the_template(base: Path) -> None:
    chat = Chat(base)
    (tokens,) = chat.encode([(QUESTION, "So.")])
    assert chat.tokenizer.decode(tokens.prompt) == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert chat.tokenizer.decode(tokens.completion) == "So.<|im_end|>"
    assert chat.prompts([QUESTION]) == [tokens.prompt]


def test_a_template_that_ends_no_answer_gets_an_end(base: Path) -> None:
    chat = Chat(base)
    chat.tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    (tokens,) = chat.encode([(QUESTION, "So.")])
    assert tokens.completion[-1] == chat.tokenizer.eos_token_id


def test_a_template_that_rewrites_earlier_turns_is_refused(base: Path) -> None:
    chat = Chat(base)
    chat.tokenizer.chat_template = (
        "{{ messages | length }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
    )
    with pytest.raises(ChatFault, match="changes earlier turns"):
        chat.encode([(QUESTION, "So.")])


def test_the_saved_format_is_the_same_format(base: Path, tmp_path: Path) -> None:
    chat = Chat(base)
    chat.save(tmp_path)
    saved = Chat(tmp_path)
    assert saved.template_sha256 == chat.template_sha256
    assert saved.stop_ids == chat.stop_ids
    assert saved.prompts([QUESTION]) == chat.prompts([QUESTION])


def test_a_cut_row_keeps_its_beginning() -> None:
    tokens = Tokens.of([1, 2, 3], [4, 5])
    assert tokens.cut(4) == Tokens.of([1, 2, 3], [4])
    assert tokens.cut(2) == Tokens([1, 2], [False, False], unlearnt=1)
