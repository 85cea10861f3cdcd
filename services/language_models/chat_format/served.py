"""Finds the text of an answer as a model is served it: the prompt, and behind it what has to be generated."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from schemas.lines import Message
from schemas.reasons import shown
from services.language_models.chat_format.templates import ChatFault
from services.language_models.chat_format.written import (
    THOUGHT_BEGINS,
    THOUGHT_ENDS,
    called,
    refuse_left_out,
    says,
    thought_of,
    turn_named,
    with_thought,
)

_SENTINEL = "Zq0Answer"
_LAST_TAG = re.compile(r"(?P<left>[<\[])(?P<closes>/?)(?P<name>\w+)(?P<right>[>\]])\s*$")
"""The tag at the end of a generation prompt that opens a thought, or ends it."""
Render = Callable[[Sequence[Message], bool], str]
"""The text of a chat, whole if it is answered; raises ChatFault."""


class Served(NamedTuple):
    """The text of a chat with its last answer, and its beginning that is the prompt at generation."""

    prompt: str
    whole: str
    answer: Message
    """The last answer, whose parts are all in the text behind the prompt."""


def served(render: Render, messages: Sequence[Message], answer: Message, *, thinks: bool) -> Served:
    """Return the texts of a chat with its answer. Raises ChatFault if no rendering says both the prompt and the answer.

    `thinks` says whether the template knows thoughts in tags.

    If the template writes the answer differently from what is generated behind its generation prompt (it opens a thought
    there, or leaves the thought out of what was answered), the text is put together from the prompt, the answer's own
    text and the end that the template writes behind an answer, which a sentinel in its place finds.
    """
    if answer.content.lstrip().startswith(THOUGHT_BEGINS) and THOUGHT_ENDS not in answer.content:
        raise ChatFault(
            "the thought of an answer has no end, as in one that was cut", "remove the row, or complete its answer"
        )
    prompt = render(messages, False)
    whole = render([*messages, answer], True)
    if whole.startswith(prompt) and says(whole[len(prompt) :], answer):
        _refuse_header(render, messages, answer, prompt, whole)
        return Served(prompt, whole, answer)
    if answer.reasoning and not thinks:
        raise refuse_left_out(f"reasoning_content of {turn_named(answer)}")
    sentinel = render([*messages, Message(role="assistant", content=_SENTINEL)], True)
    head, found, tail = sentinel.rpartition(_SENTINEL)
    if not found:
        raise refuse_left_out(turn_named(answer))
    if prompt.startswith(head):
        return _put_together(prompt, _continued(prompt[len(head) :], answer), tail)
    if not head.startswith(prompt):
        closed = render(messages, True)
        if prompt.startswith(closed) and head.startswith(closed):
            if prompt.rstrip().endswith(THOUGHT_BEGINS):  # and behind an answer without a thought the template closes it
                return _put_together(prompt, _behind(prompt, answer), tail)
            what = "its chat template begins an answer in the history otherwise than its generation prompt does"
            raise ChatFault(what, "set chat_template to one that begins both alike")
        raise ChatFault("its chat template changes earlier turns when an answer follows, so no answer can be learnt")
    if THOUGHT_ENDS in with_thought(answer) and not answer.tool_calls:
        return _put_together(prompt, _behind(prompt, answer), tail)
    raise refuse_left_out(_missing(whole[len(prompt) :], answer))


def _put_together(prompt: str, text: str, tail: str) -> Served:
    return Served(prompt, prompt + text + tail, Message(role="assistant", content=text))


def _refuse_header(render: Render, messages: Sequence[Message], answer: Message, prompt: str, whole: str) -> None:
    """Raise ChatFault if the header of the answer is no part of the prompt, since the template writes none after these turns."""
    content = answer.content.strip()
    if answer.tool_calls or (content and whole[len(prompt) :].lstrip().startswith(content)):
        return
    sentinel = render([*messages, Message(role="assistant", content=_SENTINEL)], True)
    if sentinel[len(prompt) :].partition(_SENTINEL)[0].strip() and render(messages, True) == prompt:
        raise ChatFault(
            "its chat template writes no generation prompt after these turns, so the header of the answer would be learnt",
            "correct the turns of the row, or set chat_template to one that writes it where add_generation_prompt is set",
        )


def _behind(prompt: str, answer: Message) -> str:
    """Return the answer's text with its thought; without its beginning if the generation prompt ends with that."""
    opened = prompt.rstrip()
    if not opened.endswith(THOUGHT_BEGINS):
        return with_thought(answer)
    return _continued(THOUGHT_BEGINS + prompt[len(opened) :], answer)


def _continued(opener: str, answer: Message) -> str:
    """Return the answer's text behind a generation prompt that goes on with `opener`, which the answered chat lacks."""
    text = with_thought(answer)
    if answer.tool_calls:
        raise refuse_left_out(f"tool_calls of {turn_named(answer)} behind its generation prompt")
    if not opener.strip():
        return text.lstrip() if opener else text
    begun = text.lstrip()
    if begun.startswith(opener.strip()):
        rest = begun[len(opener.strip()) :]
        return rest.lstrip("\n") if opener.endswith("\n") else rest
    tag = _LAST_TAG.search(opener)
    if tag is None:
        raise ChatFault(
            f"the generation prompt of its chat template ends with {shown(opener.strip())}, which the answered chat lacks",
            "correct the turns of the row, or set chat_template to one that begins both alike",
        )
    if tag["closes"]:
        return _behind_closed(opener, text)
    if f"{tag['left']}/{tag['name']}{tag['right']}" in text and not answer.reasoning and not begun.startswith(tag["left"]):
        return text
    raise ChatFault(
        f"the generation prompt of its chat template opens a thought ({shown(opener.strip())}), and the answer has none",
        "give the thought in reasoning_content or in front of the answer, or set chat_template to one that opens none",
    )


def _behind_closed(opener: str, text: str) -> str:
    """Return the answer's text behind a generation prompt with a thought that is empty, or ended before it."""
    if THOUGHT_ENDS in text:
        raise ChatFault(
            f"the generation prompt of its chat template ends the thought ({shown(opener.strip())}), and the answer has one",
            "leave out the thought, or set chat_template to one that lets the model think",
        )
    return text


def _missing(text: str, answer: Message) -> str:
    """Return the name of what the text does not say of the answer."""
    if any(name not in text for name in called(answer)):
        return f"tool_calls of {turn_named(answer)}"
    if thought_of(answer)[0].strip() not in text:
        return f"reasoning_content of {turn_named(answer)}"
    return turn_named(answer)
