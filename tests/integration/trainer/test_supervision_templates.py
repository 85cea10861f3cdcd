"""One template, the same bytes in training, evaluation and serving, today and tomorrow."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from services.language_models.chat_format.chat import Chat, ChatFault
from tests.chat_templates import CHATML, DATED, TOOLS, WITHOUT_PROMPT
from tests.supervised import answers, call, chat_of, encoded, prompt, row, tool, turn
from tests.tiny_tokenizers import END, bytes_tokenizer

HI = row("user: Hi", "assistant: Hello.")


@pytest.fixture
def in_2031(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library believe that it is another day."""
    import transformers.utils.chat_template_utils as library

    class Later(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Later":
            return cls(2031, 1, 1, 8, 30)

    monkeypatch.setattr(library, "datetime", Later)


@pytest.mark.parametrize(
    ("template", "written"),
    [
        (DATED, "Today: 26 Jul 2024\n"),
        (DATED.replace("'%d %b %Y'", "'%B %d, %Y'"), "Today: July 26, 2024\n"),
        (DATED.replace("'%d %b %Y'", '"%Y-%m-%d"'), "Today: 2024-07-26\n"),
        (DATED.replace("'%d %b %Y'", "'%A %-d.%-m.%y, week %V'"), "Today: Friday 26.7.24, week 30\n"),
        (DATED.replace("'%d %b %Y'", "'%H:%M:%S'"), "Today: 00:00:00\n"),
        ("{% if not date_string is defined %}{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}{% endif %}Today Date: {{ date_string }}\n\n" + CHATML, "Today Date: 26 Jul 2024\n"),
        ("{% macro system() %}Current date: {{ strftime_now('%Y-%m-%d') }}{% endmacro %}{{ system() }}\n" + CHATML, "Current date: 2024-07-26\n"),
        ("{%- set day = strftime_now('%d') %}\n  {%- if day == '26' %}{{ 'Day ' + day }}\n{% endif %}" + CHATML, "Day 26\n"),
        ("{% for m in messages %}{{ strftime_now('%Y') }} {{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}{{ strftime_now('%Y') }} assistant: {% endif %}", "2024 user: Hi"),
        ("\n  {% if true %}Since {% endif %}{{ strftime_now('%Y') }}\n" + CHATML, "\nSince 2024\n"),
    ],
)  # fmt: skip
def test_a_date_is_the_same_on_every_day(tmp_path: Path, in_2031: None, template: str, written: str) -> None:
    chat = chat_of(tmp_path, template)
    assert prompt(chat, encoded(chat, HI)).startswith(written)
    assert answers(chat, HI)[0].endswith("Hello." + END)


def test_the_served_template_writes_the_same_date(tmp_path: Path, in_2031: None) -> None:
    from transformers import AutoTokenizer

    chat = chat_of(tmp_path, DATED)
    chat.save(tmp_path / "adapter")
    served = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    text = served.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    assert text == prompt(chat, encoded(chat, HI))


def test_a_template_without_a_date_is_left_as_it_is(tmp_path: Path) -> None:
    assert chat_of(tmp_path, CHATML).tokenizer.chat_template == CHATML


def test_of_named_templates_the_default_is_used(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, {"default": CHATML, "rag": TOOLS})
    assert chat.template_sha256 == chat_of(tmp_path / "plain", CHATML).template_sha256


@pytest.mark.parametrize(
    "default", [CHATML, DATED, WITHOUT_PROMPT, f"{CHATML}\n", f"\n  {{% if true %}}x{{% endif %}}{CHATML}  "]
)
def test_a_row_with_tools_is_written_by_the_template_named_tool_use(tmp_path: Path, default: str) -> None:
    chat = chat_of(tmp_path, {"default": default, "tool_use": TOOLS})
    asked = row("user: Lamps?", turn("assistant: ", tool_calls=(call("stock", item="lamp"),)), tools=[tool("stock")])
    for one, template in ((HI, default), (asked, TOOLS)):
        alone = chat_of(tmp_path / "alone", template)
        assert encoded(chat, one) == encoded(alone, one)
    chat.save(tmp_path / "adapter")
    assert Chat(tmp_path / "adapter").template_sha256 == chat.template_sha256
    assert Chat(tmp_path / "adapter").prompts([asked]) == chat.prompts([asked])


def test_named_templates_without_a_default_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ChatFault, match="none of them is named default"):
        chat_of(tmp_path, {"tool_use": TOOLS, "rag": CHATML})


def test_a_list_of_named_templates_in_the_configuration_is_read(tmp_path: Path) -> None:
    folder = bytes_tokenizer(tmp_path / "tokenizer", None)
    known = json.loads((folder / "tokenizer_config.json").read_text())
    named = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": TOOLS}]
    (folder / "tokenizer_config.json").write_text(json.dumps(known | {"chat_template": named}))
    assert answers(Chat(folder), HI) == ["Hello." + END]


def test_a_base_without_a_template_takes_the_given_one_and_serves_it(tmp_path: Path) -> None:
    with pytest.raises(ChatFault, match="no chat template"):
        chat_of(tmp_path, None)
    chat = chat_of(tmp_path, None, CHATML)
    assert answers(chat, HI) == ["Hello." + END]
    chat.save(tmp_path / "adapter")
    assert Chat(tmp_path / "adapter").prompts([HI]) == chat.prompts([HI])


def test_a_given_template_replaces_the_bases(tmp_path: Path) -> None:
    chat = chat_of(tmp_path, CHATML, "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}")
    assert prompt(chat, encoded(chat, HI)) == f"[user] Hi{END}[assistant]"


@pytest.mark.parametrize("template", ["{% for m in messages %}", "{{ messages | no_filter }}", "{% nonsense %}"])
def test_a_template_that_is_not_jinja_is_refused(tmp_path: Path, template: str) -> None:
    with pytest.raises(ChatFault, match="not valid Jinja"):
        chat_of(tmp_path, CHATML, template)


@pytest.mark.parametrize("drawn", ["{{ ['a', 'b'] | random }}", "{{ range(9)|random }}", "{{ lipsum(1) }}"])
def test_a_template_that_draws_at_random_is_refused(tmp_path: Path, drawn: str) -> None:
    with pytest.raises(ChatFault, match="something random"):
        chat_of(tmp_path, drawn + CHATML)


def test_what_a_template_says_on_its_refusal_is_repeated_unless_it_is_a_text_of_the_row(tmp_path: Path) -> None:
    refuses = "{% if messages[0].content == 'Hi' %}{{ raise_exception('Roles must alternate') }}{% else %}{{ raise_exception(messages[0].content) }}{% endif %}"
    chat = chat_of(tmp_path, refuses)
    with pytest.raises(ChatFault, match="refuses it: Roles must alternate"):
        encoded(chat, HI)
    with pytest.raises(ChatFault, match=r"refuses it \(TemplateError\)"):
        encoded(chat, row("user: secret", "assistant: b"))


def test_a_header_that_the_history_has_in_another_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChatFault, match="otherwise than its generation prompt"):
        encoded(chat_of(tmp_path, CHATML.replace("<|im_start|>assistant", "<|im_start|>model")), HI)


@pytest.mark.parametrize("filter_", ["replace('<br>', ' ')", "trim", "upper"])
def test_an_answer_is_learnt_as_it_is_where_the_template_changes_white_space_or_more(tmp_path: Path, filter_: str) -> None:
    said = "x<br>y  z\n\n  w"
    template = CHATML.replace("message['content'] }}", f"message['content'].split() | join(' ') | {filter_} }}}}")
    one = row("user: HI", f"assistant: {said}")
    if filter_ == "upper":
        with pytest.raises(ChatFault, match="does not write"):
            encoded(chat_of(tmp_path, template), one)
    else:
        assert answers(chat_of(tmp_path, template), one) == [said + END]


def test_answers_of_the_history_have_their_end_where_the_last_one_has_none(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% if not loop.last %}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_end|>\n<|im_start|>assistant\n{% endif %}"
    )
    said = answers(chat_of(tmp_path, template), row("user: a", "assistant: b", "user: c", "assistant: d"))
    assert said == ["b" + END, "d" + END]


def test_a_given_template_that_loses_texts_is_refused_by_row(tmp_path: Path) -> None:
    with pytest.raises(ChatFault, match="does not write"):
        encoded(chat_of(tmp_path, CHATML, "{{ messages[-1].content }}"), HI)
