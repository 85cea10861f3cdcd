"""Reads the turns of a chat as the usual formats write them: OpenAI's messages, and ShareGPT's from and value. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from schemas.lines import Message
from services.trainer.data.columns import RowFault, kind_of, parsed
from services.trainer.data.tools import calls_of

_ROLES = {
    "human": "user", "prompter": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "ai": "assistant",
    "chatgpt": "assistant", "observation": "tool", "function": "tool", "function_response": "tool", "tool_response": "tool",
    "function_call": "assistant", "tool_call": "assistant", "chatbot": "assistant", "bard": "assistant", "bing": "assistant",
    "claude": "assistant",
}  # fmt: skip
"""Other common names for the roles of a chat."""
USUAL_ROLES = frozenset({"user", "assistant", "tool", "system", "developer"})
_KNOWN = {*_ROLES, *USUAL_ROLES}
_CALLS = ("function_call", "tool_call")
_SEPARATORS = re.compile(r"[\s-]+")
_TEXT_PARTS = ("text", "input_text", "output_text")
_OTHER_PARTS = frozenset(
    {"image", "image_url", "audio", "input_audio", "video", "file", "refusal", "reasoning", "tool_use", "tool_result"}
)
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "thought")
_LEARNT = ("weight", "train", "training", "trainable", "loss", "loss_scale", "loss_mask")
"""Fields of a turn that say whether it is learnt, as OpenAI, Axolotl, ms-swift and verl name them."""
_UNREAD = ("mask", "channel", "tool_plan", "image", "images", "audio", "audios", "video", "videos", "files", "attachments")
"""Fields of a turn whose meaning would be lost: which mask is meant, gpt-oss's channels, Cohere's plans, what is no text."""
_OTHER_THOUGHTS = ("reasoning_details", "thinking_blocks")
"""Fields with thoughts in parts, as OpenRouter and LiteLLM write them beside the text."""
_OF_TOOL = ("name", "tool_call_id")
"""Fields of a tool's turn that templates write, to say which call it answers."""
_UNLEARNT = "masked"
"""Field of a turn that says the contrary, as torchtune names it."""
_IN_PARTS = ("train_detail", "training_detail")
"""Fields of Axolotl that say which parts of a turn are learnt."""


def turns_of(value: object, field: str, column: str) -> tuple[Message, ...]:
    """Return the turns of a chat, without blank system turns. Raises RowFault."""
    value = parsed(value, field, f"column {column!r}")
    if not isinstance(value, list | tuple):
        raise RowFault(field, f"column {column!r} does not contain a list of turns", "name the column with the chat")
    turns = tuple(turn_of(turn, field, column) for turn in value)
    turns = tuple(turn for turn in turns if turn.role != "system" or turn.content.strip())
    if any(turn.role == "system" for turn in turns[1:]):
        what = f"the chat in {column!r} has a system turn that is not the first turn"
        raise RowFault(field, what, "move it to the front or remove it")
    return turns


def turn_of(turn: object, field: str, column: str) -> Message:
    """Return a turn of a chat. Raises RowFault if it is blank, or holds something that would be lost."""
    where = f"a turn in {column!r}"
    if not isinstance(turn, Mapping):
        raise RowFault(field, f"{where} is {kind_of(turn)}", "write turns as {role, content}")
    given = {name: value for name, value in turn.items() if value is not None}
    said = given.get("role", given.get("from"))
    if not isinstance(said, str):
        raise RowFault(field, f"{where} has no text in role and content", "write turns as {role, content}")
    if "content" in given and "value" in given and given["content"] != given["value"]:
        raise RowFault(field, f"{where} has two different texts, in content and in value", "keep one of them")
    name = _SEPARATORS.sub("_", said.strip().rstrip(":").lower())
    role = _ROLES.get(name, name if name in _KNOWN else said)
    content, thought = _content(given.get("content", given.get("value")), field, where)
    calls = _calls(given, field, where)
    if name in _CALLS and not calls:
        calls, content = calls_of(content, field, f"{where} of role {name}"), ""
    thought = next((given[key] for key in _THOUGHTS if isinstance(given.get(key), str)), thought)
    _refuse_unread(given, thought, field, where)
    if content is None and not calls:
        raise RowFault(field, f"{where} has no text in role and content", "write turns as {role, content}")
    if not (content or "").strip() and not calls and role not in ("system", "tool"):
        raise RowFault(field, f"{where} is empty", "fill it in, or remove the turn or the row")
    if calls and role != "assistant":
        raise RowFault(field, f"{where} has tool_calls, and only an assistant calls tools", "correct its role")
    of_tool = {key: given[key] for key in _OF_TOOL if role == "tool" and isinstance(given.get(key), str)}
    weight = _weight(given, field, where)
    return Message(
        role=role, content=content or "", tool_calls=calls, reasoning=thought or None, **of_tool,
        **({} if weight is None else {"weight": weight}),
    )  # fmt: skip


def asks_in_vain(turn: Message) -> bool:
    """Return whether the row asks that a turn be learnt (weight 1, train: true) that is not an assistant's, as Axolotl and ChatGLM3
    learn turns of any role."""
    return turn.role != "assistant" and turn.weight == 1 and "weight" in turn.model_fields_set


def _content(value: object, field: str, where: str) -> tuple[str | None, str | None]:
    """Return the text of a turn's content, and what was thought if that is one of its parts."""
    if isinstance(value, Mapping):
        if not {"type", "text"} & set(value):
            what = f"the content of {where} is an object, not text"
            raise RowFault(field, what, "write the content as text, such as the object's JSON")
        value = [value]
    if not isinstance(value, list | tuple):
        if value is None or isinstance(value, str):
            return value, None
        raise RowFault(field, f"the content of {where} is {kind_of(value)}, not text", "write the content as text")
    texts, thoughts = list[str](), list[str]()
    for part in value:
        kind = part.get("type", "text") if isinstance(part, Mapping) else None
        text = part if isinstance(part, str) else part.get(kind if kind == "thinking" else "text") if kind else None
        if kind == "thinking" and not isinstance(text, str):
            text = _content(text, field, where)[0]
        if not isinstance(text, str) or (kind and kind not in (*_TEXT_PARTS, "thinking")):
            what = f"the content of {where} has a part that is not text{_named(kind)}"
            raise RowFault(field, what, "only text is learnt: leave out rows with images, sound or files")
        (thoughts if kind == "thinking" else texts).append(text)
    return "".join(texts), "".join(thoughts) or None


def _refuse_unread(given: Mapping[str, Any], thought: str | None, field: str, where: str) -> None:
    """Raise RowFault if a turn has a filled field that would change what is learnt, and is not read."""
    names = _UNREAD if thought else (*_UNREAD, *_OTHER_THOUGHTS)
    for name in names:
        if given.get(name) not in (None, "", [], (), {}) and (name, given[name]) != ("channel", "final"):
            what = f"{where} has a field named {name}, which is not read"
            raise RowFault(field, what, "remove it, or write what it says in content, reasoning_content or weight")


def _named(kind: object) -> str:
    return f" ({kind})" if kind in _OTHER_PARTS else ""


def _calls(given: Mapping[str, Any], field: str, where: str) -> tuple[dict[str, Any], ...]:
    """Return the tool calls of a turn in OpenAI's present or former form."""
    if (calls := parsed(given.get("tool_calls"), field, f"tool_calls of {where}")) is not None:
        return calls_of(calls, field, where)
    if (call := given.get("function_call")) is not None:
        return calls_of([call], field, where)
    return ()


def _weight(given: Mapping[str, object], field: str, where: str) -> Literal[0, 1] | None:
    """Return the weight that the turn itself names; None if it names none."""
    if named := next((name for name in _IN_PARTS if given.get(name)), None):
        what = f"{where} has {named}, and turns are learnt as a whole or not at all"
        raise RowFault(field, what, "break the turn up, or write weight 0")
    weights: Sequence[object] = [given[name] for name in _LEARNT if name in given]
    if (masked := given.get(_UNLEARNT)) is not None:
        weights = [*weights, not masked if masked in (0, 1) else masked]
    if any(not isinstance(weight, bool | int | float) or weight not in (0, 1) for weight in weights):
        what = f"{where} has a weight that is neither 0 nor 1"
        raise RowFault(field, what, "write weight 1 for turns that are learnt, 0 for others")
    if not weights:
        return None
    return 0 if any(weight == 0 for weight in weights) else 1
