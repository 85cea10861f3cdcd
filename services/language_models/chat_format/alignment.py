"""Finds the answers of chats in the tokens of the whole chats: each answer has the tokens that it has when it is served.

A chat is tokenized once, as a whole. Where an answer of its history begins and ends is found by the offsets of the tokens.
Control tokens split a text before anything else does, so it is enough that the tokens since the last one before the answer
are those that this piece of the prompt has alone; where that does not decide, the chat up to the answer is tokenized, too.
"""

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from schemas.reasons import shown
from services.language_models.chat_format.served import Served
from services.language_models.chat_format.templates import ChatFault
from services.language_models.chat_format.tokens import Tokens
from services.language_models.chat_format.written import contains
from services.language_models.chats import token_ids

_BATCH = 500
_PIECES = 4096


class LearntTexts(NamedTuple):
    """The texts of the answers of one chat that are learnt, in their order, and those of the last one."""

    earlier: Sequence[Served]
    last: Served
    last_is_learnt: bool
    unlearnt: int


class _Answer(NamedTuple):
    """Where an answer is in tokens; `end` is behind the token that ends it, or behind its last token."""

    start: int
    end: int
    ended: bool


class _Whole(NamedTuple):
    """The tokens of a chat; the characters of its text where each begins and ends, if the tokenizer tells them."""

    ids: list[int]
    starts: list[int]
    ends: list[int]


class Alignment:
    """The tokens of chats for one tokenizer."""

    def __init__(self, tokenizer: Any, stop_ids: frozenset[int]) -> None:
        self._tokenizer, self._stop_ids = tokenizer, stop_ids
        self._added = frozenset(tokenizer.added_tokens_decoder)
        self._alone = lru_cache(_PIECES)(lambda piece: token_ids(tokenizer, [piece])[0])

    def tokens(self, plans: Sequence[LearntTexts]) -> list[Tokens]:
        """Return the tokens of each chat. Raises ChatFault if a prompt has other tokens than the beginning of its chat."""
        prompts = token_ids(self._tokenizer, [plan.last.prompt for plan in plans])
        wholes = self._wholes([plan.last.whole for plan in plans])
        return [self._tokens(*found) for found in zip(plans, prompts, wholes, strict=True)]

    def _wholes(self, texts: Sequence[str]) -> list[_Whole]:
        if not self._tokenizer.is_fast:
            return [_Whole(ids, [], []) for ids in token_ids(self._tokenizer, texts)]
        found: list[_Whole] = []
        for first in range(0, len(texts), _BATCH):
            batch = list(texts[first : first + _BATCH])
            made = self._tokenizer(batch, add_special_tokens=False, return_offsets_mapping=True)
            for ids, offsets in zip(made["input_ids"], made["offset_mapping"], strict=True):
                found.append(_Whole(ids, [start for start, _ in offsets], [end for _, end in offsets]))
        return found

    def _tokens(self, plan: LearntTexts, prompt: list[int], whole: _Whole) -> Tokens:
        last = self._answer(prompt, whole.ids)
        if last is None:
            raise ChatFault(
                "its tokenizer joins the end of the prompt with the beginning of the answer, so that the prompt has other "
                "tokens in training than at generation",
                "remove white space from the beginning of the answer, or set chat_template to one whose generation prompt "
                "does not end in a space",
            )
        if last.ended and not self._is_complete(plan.last, whole, last):
            raise ChatFault(
                f"its chat template writes {shown(self._tokenizer.decode(whole.ids[last.end - 1]))}, which ends a generation, "
                "within the answer, so that what follows would not be learnt",
                "break the answer up into turns, or set chat_template to one that ends only a whole answer",
            )
        ids = whole.ids[: last.end]
        if not last.ended:
            ids = [*ids, int(self._tokenizer.eos_token_id)]
        learnt, unlearnt = [False] * len(ids), plan.unlearnt
        for served in plan.earlier:
            answer = self._in_history(served, plan.last.whole, whole) or self._in_tokens(served, ids)
            if answer is None:
                unlearnt += 1
            else:
                learnt[answer.start : answer.end] = [True] * (answer.end - answer.start)
        if plan.last_is_learnt:
            learnt[last.start :] = [True] * (len(ids) - last.start)
        return Tokens(ids, learnt, unlearnt)

    def _in_history(self, served: Served, text: str, whole: _Whole) -> _Answer | None:
        """Return where an earlier answer is by the offsets of the whole chat; None if they do not decide it."""
        size = len(served.prompt)
        start = bisect_left(whole.starts, size)
        if not 0 < start < len(whole.starts) or whole.ends[start - 1] > size or not text.startswith(served.prompt):
            return None
        control = next((place for place in range(start - 1, -1, -1) if whole.ids[place] in self._added), 0)
        piece = text[whole.starts[control] if control else 0 : size]
        if whole.ids[control:start] != self._alone(piece):
            return None
        answer = self._ending(whole.ids, start)
        behind = whole.ends[answer.end - 1]
        same = answer.ended and served.whole[:behind] == text[:behind]
        return answer if same and contains(text[size:behind], served.answer) else None

    def _in_tokens(self, served: Served, ids: list[int]) -> _Answer | None:
        """Return where an earlier answer is; None if the whole chat has other tokens up to its end than it has when served."""
        prompt, own = token_ids(self._tokenizer, [served.prompt, served.whole])
        answer = self._answer(prompt, own)
        if answer is None or ids[: answer.end] != own[: answer.end]:
            return None
        if answer.ended and not contains(self._text(own[answer.start : answer.end]), served.answer):
            return None
        ends = answer.end < len(ids) and ids[answer.end] in self._stop_ids  # the template ends only answers of the history
        return _Answer(answer.start, answer.end + ends, answer.ended or ends)

    def _is_complete(self, served: Served, whole: _Whole, answer: _Answer) -> bool:
        """Whether the tokens up to the one that ends the answer are the whole answer."""
        said = self._text(whole.ids[answer.start : answer.end])
        if whole.ends:
            said = served.whole[len(served.prompt) : whole.ends[answer.end - 1]]
        return contains(said, served.answer)

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _answer(self, prompt: list[int], whole: list[int]) -> _Answer | None:
        """Return where the answer is in a chat that ends with it; None if its prompt has other tokens alone."""
        return self._ending(whole, max(len(prompt), 1)) if whole[: len(prompt)] == prompt else None

    def _ending(self, ids: list[int], start: int) -> _Answer:
        """Return the answer that begins at `start`: it ends with the first token that ends a generation, else before white space."""
        for place in range(start, len(ids)):
            if ids[place] in self._stop_ids:
                return _Answer(start, place + 1, True)
        end = len(ids)
        while end > start and not self._tokenizer.decode([ids[end - 1]]).strip():
            end -= 1
        return _Answer(start, end, False)
