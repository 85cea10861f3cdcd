"""Converts chats to tokens in the same way for training, evaluation and serving: the template is stored with the model."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from jinja2 import TemplateError

from schemas.lines import Message, Row
from schemas.reasons import shortened
from schemas.recipes.model import AssistantTurns
from services.language_models.chat_format.alignment import Alignment, LearntTexts
from services.language_models.chat_format.plain import plain_start, plain_tokens
from services.language_models.chat_format.served import Served, served
from services.language_models.chat_format.templates import ChatFault, served_template
from services.language_models.chat_format.tokens import Tokens
from services.language_models.chat_format.written import (
    THOUGHT_BEGINS,
    THOUGHT_ENDS,
    control_tokens,
    left_out,
    marked,
    refuse_altered,
    refuse_control_tokens,
    refuse_left_out,
)
from services.language_models.chats import Tools, render, token_ids
from services.language_models.loading import load_tokenizer

__all__ = ["Answered", "Chat", "ChatFault", "Tokens"]

_SAID = 200
_OWN_TOKENIZER = "take the tokenizer that belongs to the model, saved with save_pretrained"
_GENERATION = "generation_config.json"
Answered = Row | tuple[Sequence[Message], str] | tuple[Sequence[Message], str, Tools]
"""A chat with its last answer: a row, or the turns and the answer's text, and the tools if there are any."""
UnansweredChat = Row | Sequence[Message]
"""A chat up to its last answer: a row, of which the answer is not read, or the turns."""


class Chat:
    """A tokenizer with its chat template."""

    def __init__(self, folder: Path, template: str | None = None) -> None:
        """Read both from the folder of a model or an adapter; a `template` replaces the folder's. Raises ChatFault."""
        try:
            self.tokenizer: Any = load_tokenizer(folder)
        except Exception as error:  # the library raises whatever its parsers raise
            what = f"its tokenizer cannot be loaded ({type(error).__name__})"
            raise ChatFault(what, _OWN_TOKENIZER) from error
        self.tokenizer.chat_template = served_template(self.tokenizer, template)
        if self.tokenizer.eos_token_id is None:
            raise ChatFault("its tokenizer has no token that ends a text (eos_token)", _OWN_TOKENIZER)
        self._folder = folder
        self._shapes: dict[str, str | None] = {}

    @property
    def template_sha256(self) -> str:
        """Digest of the template; equal digests mean equal prompts."""
        return hashlib.sha256(self.tokenizer.chat_template.encode()).hexdigest()

    @property
    def pad_id(self) -> int:
        """The token for padding, which is always masked: the one that ends a text.

        A padding token that was added to the tokenizer often has no embedding in the model.
        """
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the tokenizer's, and those of the model's generation settings. Raises the parser's errors,
        and ChatFault if the settings name something else than tokens.
        """
        ids = {int(self.tokenizer.eos_token_id)}
        file = self._folder / _GENERATION
        listed = json.loads(file.read_text()).get("eos_token_id") if file.exists() else None
        ids.update([listed] if isinstance(listed, int) else listed or ())
        if any(type(token) is not int for token in ids):
            raise ChatFault(f"its {_GENERATION} names in eos_token_id something else than numbers of tokens")
        return frozenset(ids)

    def prompts(self, chats: Iterable[UnansweredChat]) -> list[list[int]]:
        """The tokens of each chat up to where the assistant's answer begins; of a plain text its start. Raises ChatFault."""
        prompts: list[list[int] | str] = [
            plain_start(self.tokenizer) if _is_plain(chat) else self.prompt_text(chat) for chat in chats
        ]
        ids = iter(token_ids(self.tokenizer, [prompt for prompt in prompts if isinstance(prompt, str)]))
        return [next(ids) if isinstance(prompt, str) else prompt for prompt in prompts]

    def prompt_text(self, chat: UnansweredChat) -> str:
        """The text of a chat up to where the assistant's answer begins. Raises ChatFault."""
        return self._prompt_text(chat.messages, chat.tools) if isinstance(chat, Row) else self._prompt_text(chat, ())

    def _prompt_text(self, messages: Sequence[Message], tools: Tools) -> str:
        self._refuse(messages, tools, answered=False)
        text = self._render(messages, tools, answered=False)
        refuse_altered(messages, text)
        return text

    def prompt(self, messages: Sequence[Message], tools: Tools = ()) -> list[int]:
        """The tokens of one chat up to where the assistant's answer begins. Raises ChatFault."""
        return token_ids(self.tokenizer, [self._prompt_text(messages, tools)])[0]

    def encode(self, chats: Sequence[Answered], turns: AssistantTurns = "all") -> list[Tokens]:
        """The tokens of chats, of which the answers of `turns` are learnt, except those of weight 0. Raises ChatFault.

        A chat is tokenized as a whole. The tokens before each learnt answer are those of its prompt at generation; an
        earlier answer that has other tokens in the history than as the last answer is not learnt, and counted. A row without
        turns before its answer is a plain text, which is learnt as a whole. Of a row without an answer the tokens are those of
        its prompt, and none is learnt.
        """
        if any(map(_is_prompt, chats)):
            asked = iter(self.prompts([chat for chat in chats if _is_prompt(chat)]))
            answered = iter(self.encode([chat for chat in chats if not _is_prompt(chat)], turns))
            return [Tokens.of(next(asked), ()) if _is_prompt(chat) else next(answered) for chat in chats]
        if any(map(_is_plain, chats)):
            return [
                tokens
                for chat in chats
                for tokens in ([self._plain(chat)] if _is_plain(chat) else self.encode([chat], turns))
            ]
        plans = [self._planned(chat, turns) for chat in chats]
        return self._alignment.tokens(plans)

    def try_encode(self, chats: Sequence[Answered], turns: AssistantTurns = "all") -> list[Tokens | ChatFault]:
        """As `encode`, with the fault of each chat that is refused in its place."""
        try:
            return list(self.encode(chats, turns))
        except ChatFault as fault:
            if len(chats) == 1:
                return [fault]
        middle = len(chats) // 2
        return self.try_encode(chats[:middle], turns) + self.try_encode(chats[middle:], turns)

    def text(self, ids: Sequence[int]) -> str:
        """Decode an answer, without special tokens, surrounding white space and what the template writes around it."""
        return self.bare(self.said(ids))

    def said(self, ids: Sequence[int]) -> str:
        """Decode tokens without special ones."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def bare(self, said: str) -> str:
        """Return an answer's text without surrounding white space and what the template writes around it."""
        lead, end = self.around
        return said.strip().removeprefix(lead).removesuffix(end).strip()

    def save(self, folder: Path) -> None:
        """Save tokenizer, template and stop tokens, so that serving the adapter needs nothing else."""
        self.tokenizer.save_pretrained(str(folder))
        if (self._folder / _GENERATION).exists():
            shutil.copyfile(self._folder / _GENERATION, folder / _GENERATION)

    def _plain(self, row: Row) -> Tokens:
        refuse_control_tokens(self._control_tokens, [row.answer], ())
        return plain_tokens(self.tokenizer, row.completion)

    def _planned(self, chat: Answered, turns: AssistantTurns) -> LearntTexts:
        messages, answer, tools = _parts_of(chat)
        self._refuse([*messages, answer], tools, answered=True)
        last = self._served(messages, answer, tools)
        refuse_altered(messages, last.prompt)
        earlier = [place for place, turn in enumerate(messages) if turn.role == "assistant"]
        wanted = [place for place in earlier if turns == "all" and messages[place].weight]
        found = []
        for place in wanted:
            try:
                found.append(self._served(messages[:place], messages[place], tools))
            except ChatFault:
                continue  # it is counted as not learnt: alone it is no chat that the template takes
        unlearnt = len(earlier) - len(found) + (answer.weight == 0)
        return LearntTexts(found, last, bool(answer.weight), unlearnt)

    def _served(self, messages: Sequence[Message], answer: Message, tools: Tools) -> Served:
        def rendered(chat: Sequence[Message], answered: bool) -> str:
            return self._render(chat, tools, answered=answered)

        return served(
            rendered,
            messages,
            answer,
            thinks=any(tag in self.tokenizer.chat_template for tag in (THOUGHT_BEGINS, THOUGHT_ENDS)),
        )

    def _refuse(self, chat: Sequence[Message], tools: Tools, *, answered: bool) -> None:
        """Raise ChatFault if a text spells a control token, or the template does not write a part of a chat of this shape."""
        refuse_control_tokens(self._control_tokens, chat, tools)
        turns, marked_tools, parts = marked(chat, tools)
        shape = (
            f"{answered} {[(turn.role, part) for turn in turns for part in (turn.content, len(turn.tool_calls))]} {parts}"
        )
        if shape not in self._shapes:
            try:
                missing = left_out(parts, self._render(turns, marked_tools, answered=answered))
            except ChatFault:
                missing = None  # the chat itself is refused, too, or its own texts are what the template needs
            self._shapes[shape] = missing and missing.name
        if name := self._shapes[shape]:
            raise refuse_left_out(name)

    @cached_property
    def _alignment(self) -> Alignment:
        return Alignment(self.tokenizer, self.stop_ids)

    @cached_property
    def _control_tokens(self) -> re.Pattern[str]:
        added = self.tokenizer.added_tokens_decoder
        tokens = [(token.content, token.special or number in self.stop_ids) for number, token in added.items()]
        return control_tokens(tokens, self.tokenizer.chat_template)

    @cached_property
    def around(self) -> tuple[str, str]:
        """What the template writes between the generation prompt and an answer's text, and behind it, as `text` reads it."""
        asked, sentinel = [Message(role="user", content="Zq0Question")], "Zq1Answer"
        try:
            prompt = self._render(asked, answered=False)
            whole = self._render([*asked, Message(role="assistant", content=sentinel)], answered=True)
        except ChatFault:
            return "", ""
        lead, _, end = whole[len(prompt) :].partition(sentinel) if whole.startswith(prompt) else ("", "", "")
        read = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in token_ids(self.tokenizer, [lead, end])]
        return str(read[0]).strip(), str(read[1]).strip()

    def _render(self, messages: Sequence[Message], tools: Tools = (), *, answered: bool) -> str:
        try:
            return render(self.tokenizer, messages, answered=answered, tools=tools)
        except Exception as error:  # a template raises what it likes, and the library what its templates make it raise
            rest = [turn for turn in messages if turn.role != "system"]
            if 0 < len(rest) < len(messages) and self._takes(rest, tools, answered):
                remedy = "leave out the system prompt, put it into the first user turn, or name another base model"
                raise ChatFault("the base model's chat template refuses it: it takes no system prompt", remedy) from error
            raise ChatFault(f"the base model's chat template refuses it{self._said(error)}") from error

    def _said(self, error: Exception) -> str:
        """Return what the template says on its refusal, if that is its own text and not one of the row's."""
        own = isinstance(error, TemplateError) and str(error).strip() and str(error) in self.tokenizer.chat_template
        return f": {shortened(str(error), _SAID)}" if own else f" ({type(error).__name__})"

    def _takes(self, messages: Sequence[Message], tools: Tools, answered: bool) -> bool:
        try:
            render(self.tokenizer, messages, answered=answered, tools=tools)
        except Exception:  # as above
            return False
        return True


def _is_plain(chat: Answered | UnansweredChat) -> TypeGuard[Row]:
    return isinstance(chat, Row) and not chat.messages


def _is_prompt(chat: Answered | UnansweredChat) -> TypeGuard[Row]:
    return isinstance(chat, Row) and not chat.answered


def _parts_of(chat: Answered) -> tuple[Sequence[Message], Message, Tools]:
    if isinstance(chat, Row):
        return chat.messages, chat.answer, chat.tools
    tools = chat[2] if len(chat) == 3 else ()
    return chat[0], Message(role="assistant", content=chat[1]), tools
