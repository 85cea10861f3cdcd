"""Converts chats to tokens in the same way for training, evaluation and serving: the template is stored with the model."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from schemas.lines import Message, Row
from services.language_models.chats import render, token_ids
from services.language_models.loading import load_tokenizer

_GENERATION = "generation_config.json"


class ChatFault(Exception):
    """The tokenizer or its chat template cannot be used."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """A whole chat as token ids, and which of them are supervised; several answers may be."""

    ids: Sequence[int]
    learnt: Sequence[bool]
    """As many as `ids`: true for the tokens of answers that are learnt, with the token that ends each."""

    @classmethod
    def of(cls, prompt: Sequence[int], completion: Sequence[int]) -> "Tokens":
        """A chat of which one answer, at its end, is learnt."""
        return cls([*prompt, *completion], [False] * len(prompt) + [True] * len(completion))

    @property
    def prompt(self) -> list[int]:
        """The tokens before the first supervised one."""
        first = next((place for place, learnt in enumerate(self.learnt) if learnt), len(self.ids))
        return list(self.ids[:first])

    @property
    def completion(self) -> list[int]:
        """The supervised tokens of all learnt answers."""
        return [token for token, learnt in zip(self.ids, self.learnt, strict=True) if learnt]

    @property
    def supervised(self) -> int:
        """The number of supervised tokens."""
        return sum(self.learnt)

    def cut(self, length: int) -> "Tokens":
        """The first `length` tokens."""
        return Tokens(self.ids[:length], self.learnt[:length])

    def __len__(self) -> int:
        return len(self.ids)


Answered = Row | tuple[Sequence[Message], str]
"""A chat with its last answer: a row, or the turns and the answer's text."""


class Chat:
    """A tokenizer with its chat template."""

    def __init__(self, folder: Path) -> None:
        """Read both from the folder of a model or an adapter. Raises ChatFault."""
        try:
            self.tokenizer: Any = load_tokenizer(folder)
        except Exception as error:  # the library raises whatever its parsers raise
            raise ChatFault(f"its tokenizer cannot be loaded ({type(error).__name__})") from error
        if not isinstance(self.tokenizer.chat_template, str):
            raise ChatFault("its tokenizer has no chat template")
        if self.tokenizer.eos_token_id is None:
            raise ChatFault("its tokenizer has no token that ends a text (eos_token)")
        self._folder = folder

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
        """Tokens that end an answer: the tokenizer's, and those of the model's generation settings."""
        ids = {int(self.tokenizer.eos_token_id)}
        file = self._folder / _GENERATION
        listed = json.loads(file.read_text()).get("eos_token_id") if file.exists() else None
        ids.update([listed] if isinstance(listed, int) else listed or ())
        return frozenset(ids)

    def prompts(self, chats: Iterable[Sequence[Message]]) -> list[list[int]]:
        """The tokens of each chat up to where the assistant's answer begins."""
        return token_ids(self.tokenizer, [self._render(chat, answered=False) for chat in chats])

    def encode(self, chats: Sequence[Answered]) -> list[Tokens]:
        """The tokens of chats with their answers. Raises ChatFault if the template rejects a chat.

        Prompt and answer are tokenized separately, since they also are at generation.
        """
        prompts, answers = [], []
        for chat in chats:
            messages, answer = _turns(chat)
            prompt = self._render(messages, answered=False)
            whole = self._render([*messages, answer], answered=True)
            if not whole.startswith(prompt):
                raise ChatFault(
                    "its chat template changes earlier turns when an answer follows, so no answer can be learnt"
                )
            prompts.append(prompt)
            answers.append(whole[len(prompt) :])
        pairs = zip(token_ids(self.tokenizer, prompts), token_ids(self.tokenizer, answers), strict=True)
        return [Tokens.of(prompt, self._ended(answer)) for prompt, answer in pairs]

    def text(self, ids: Sequence[int]) -> str:
        """Decode an answer, without special tokens and surrounding white space."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def save(self, folder: Path) -> None:
        """Save tokenizer, template and stop tokens, so that serving the adapter needs nothing else."""
        self.tokenizer.save_pretrained(str(folder))
        if (self._folder / _GENERATION).exists():
            shutil.copyfile(self._folder / _GENERATION, folder / _GENERATION)

    def _render(self, messages: Sequence[Message], *, answered: bool) -> str:
        from jinja2 import TemplateError

        try:
            return render(self.tokenizer, messages, answered=answered)
        except TemplateError as error:
            raise ChatFault(f"the base model's chat template refuses it ({type(error).__name__})") from error

    def _ended(self, ids: list[int]) -> list[int]:
        """The tokens up to the last one that ends an answer; what the template writes after it is never generated."""
        last = next((index for index in range(len(ids) - 1, -1, -1) if ids[index] in self.stop_ids), None)
        return [*ids, self.tokenizer.eos_token_id] if last is None else ids[: last + 1]


def _turns(chat: Answered) -> tuple[Sequence[Message], Message]:
    if isinstance(chat, Row):
        return chat.messages, chat.answer
    messages, completion = chat
    return messages, Message(role="assistant", content=completion)
