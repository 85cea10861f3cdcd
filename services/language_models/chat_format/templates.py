"""Makes the chat template that a model is trained, evaluated and served with: one text, the same bytes for all three.

It is the request's template, or the tokenizer's (of several `default`, and for chats with tools `tool_use`, as transformers
chooses), with two additions where they are needed:

- `strftime_now` is a fixed date, since a prompt with today's date would make another model of the same recipe tomorrow;
- a template that ignores `add_generation_prompt` writes the header of an answer where it is set.

Both are Jinja, not code of this project, so that any server renders the saved template to the same prompt.
"""

import re
from datetime import datetime
from typing import Any

from schemas.lines import Message
from services.language_models.chats import render

PINNED_DATE = datetime(2024, 7, 26)  # noqa: DTZ001  # a calendar day, of no zone
"""The date that templates read: the one that Llama 3 writes if it is told none."""
_DIRECTIVES = "aAwdbBmyYHIMSpfjUWcxXeDFTRuVGhnt"
_PADDED = "dmHIMSyj"
_RANDOM = re.compile(r"\|\s*random\b|\blipsum\s*\(")
"""What Jinja draws at random."""
_TUNED = "name a model that was tuned for chats, or give a chat_template in the request"
_ASKED, _ANSWERED = "Zq0Question", "Zq1Answer"


class ChatFault(Exception):
    """The tokenizer, its chat template or a chat cannot be used; `remedy` says what to do about a chat."""

    def __init__(self, message: str, remedy: str = "correct the turns of the row, or name another base model") -> None:
        super().__init__(message)
        self.remedy = remedy


def served_template(tokenizer: Any, given: str | None) -> str:
    """Return the template to use; `given` replaces the tokenizer's. The result is its own result. Raises ChatFault."""
    parts = [
        _with_generation_prompt(tokenizer, part)
        for part in ([given] if given is not None else _own(tokenizer.chat_template))
    ]
    return _with_fixed_date(_either(*parts) if len(parts) > 1 else parts[0])


def _own(template: object) -> list[str]:
    """Return the tokenizer's template, and after it the one for chats with tools if that is another one."""
    named: dict[str, Any] = template if isinstance(template, dict) else {"default": template}
    if named.get("default") is None and isinstance(template, dict):
        raise ChatFault("its tokenizer has several chat templates and none of them is named default", _TUNED)
    found = list(dict.fromkeys(named[name] for name in ("default", "tool_use") if named.get(name)))
    if not found or not all(isinstance(one, str) and one.strip() for one in found):
        raise ChatFault("its tokenizer has no chat template", _TUNED)
    return found


def _either(without: str, with_tools: str) -> str:
    """Return one template for both. The first line break behind a block and the last one of a template are not written."""
    ends = [template.removesuffix("\n") for template in (with_tools, without)]
    return "{% if tools %}\n" + ends[0] + "{%+ else %}\n" + ends[1] + "{%+ endif %}"


def _with_fixed_date(template: str) -> str:
    """Define `strftime_now` in the template itself, where it is used: every directive has one value for a fixed date.

    The line break behind the macro is not written, since the first one behind a block never is.
    """
    if "strftime_now" not in template or template.startswith(_FIXED_DATE):
        return template
    return _FIXED_DATE + template


def _date_macro() -> str:
    values = {f"%{sign}": PINNED_DATE.strftime(f"%{sign}") for sign in _DIRECTIVES}
    values |= {f"%-{sign}": values[f"%{sign}"].lstrip("0") or "0" for sign in _PADDED}
    replaced = "".join(f" | replace({sign!r}, {value!r})" for sign, value in values.items())
    return "{%- macro strftime_now(format) -%}{{ format" + replaced + " }}{%- endmacro %}\n"


_FIXED_DATE = _date_macro()


def _refuse_unreadable(template: str) -> None:
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    if _RANDOM.search(template):
        raise ChatFault("the chat template writes something random, so that no prompt is like the next", _TUNED)
    try:
        _compile_jinja_template(template)
    except TemplateError as error:
        where = f", line {error.lineno}" if hasattr(error, "lineno") else ""
        raise ChatFault(f"the chat template is not valid Jinja ({type(error).__name__}{where})") from error


def _with_generation_prompt(tokenizer: Any, template: str) -> str:
    """Add the header of an answer where `add_generation_prompt` is set, if the template ignores it.

    White space that ends the header stays with the answer, unless it ends the line: tokenizers join a space with the
    word behind it.
    """
    _refuse_unreadable(template)
    tokenizer.chat_template = template
    asked = Message(role="user", content=_ASKED)
    for chat in ([asked], [Message(role="system", content="Zq2System"), asked]):
        try:
            opened, closed = render(tokenizer, chat), render(tokenizer, chat, answered=True)
            whole = render(tokenizer, [*chat, Message(role="assistant", content=_ANSWERED)], answered=True)
        except Exception:  # noqa: S112  # a template raises what it likes about turns that it does not want
            continue
        return _with_header(template, opened, closed, whole)
    return template  # the rows will tell what it takes


def _with_header(template: str, opened: str, closed: str, whole: str) -> str:
    header = whole[len(closed) :].partition(_ANSWERED)[0].rstrip(" ")
    if opened != closed or not whole.startswith(closed) or not header.strip():
        return template
    return template.removesuffix("\n") + "{%+ if add_generation_prompt %}{{ " + ascii(header) + " }}{% endif %}"
