"""Turns what the harness asks into tokens, as chats or plain texts, and rehearses a task without a model."""

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs

from schemas.lines import Message
from schemas.reasons import Reason
from services.chassis.executor.child import UserFault
from services.language_models.chat_format.chat import Chat
from services.language_models.chat_format.plain import plain_start
from services.language_models.chats import token_ids
from services.trainer.harness.generated import Generated
from services.trainer.harness.library import FIELD

LogLikelihoods = list[tuple[float, bool]]


class PromptedModel(LM):  # type: ignore[misc]
    """What models behind the harness's interface share. `limit`: the most tokens that the model reads; None for no limit."""

    tokenizer_name = "served"
    """The harness needs a name for a cache of prompts, which is not used."""

    def __init__(self, chat: Chat, limit: int | None, *, chats: bool) -> None:
        super().__init__()
        self.chat, self.limit = chat, limit
        self._start = [] if chats else _own_start(chat.tokenizer)

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """Return the text of a chat as it is served. Without a generation prompt, the last turn is the beginning of the answer."""
        turns = [Message(role=turn["role"], content=turn["content"]) for turn in chat_history]
        if add_generation_prompt:
            return self.chat.prompt_text(turns)
        return self.chat.prompt_text(turns[:-1]) + turns[-1].content

    def prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of texts before an answer; of an empty one the token that begins a text."""
        found = [[*self._start, *ids] for ids in token_ids(self.chat.tokenizer, texts)]
        return [ids or plain_start(self.chat.tokenizer) for ids in found]

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Return the tokens of each context, and those of what continues it.

        Both are tokenized as one text. Where the tokenizer joins them, the tokens count as continuation from the first one on
        that the context does not have alone.
        """
        contexts, wholes = self.prompts([context for context, _ in pairs]), self.prompts(list(map("".join, pairs)))
        found = []
        for (text, continuation), context, whole in zip(pairs, contexts, wholes, strict=True):
            if not text and not self._start:
                found.append((context, token_ids(self.chat.tokenizer, [continuation])[0]))
                continue
            same = next(
                (at for at, (one, other) in enumerate(zip(context, whole, strict=False)) if one != other), len(context)
            )
            found.append((whole[:same], whole[same:]))
        return found

    def generation(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the task's settings of a generation in one form. Raises UserFault if they leave no room for a prompt."""
        settings: dict[str, Any] = normalize_gen_kwargs(dict(given))
        tokens = settings["max_gen_toks"]
        if tokens < 1 or (self.limit is not None and tokens >= self.limit):
            what = f"a task asks for answers of {tokens} tokens, and the model reads {self.limit}"
            remedy = "lower max_gen_toks in the task file, or leave the task out"
            raise UserFault(Reason(field=f"{FIELD}.tasks", value=str(tokens), message=what, remedy=remedy))
        return settings


class Rehearsal(PromptedModel):
    """Answers nothing to everything, so that a task is built, asked and counted as it will be; `generated` is what it was asked for."""

    generated = Generated()

    def loglikelihood(self, requests: Sequence[Any]) -> LogLikelihoods:
        """Return equal scores."""
        return [(-1.0, False) for _ in requests]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Return equal scores."""
        return [-1.0 for _ in requests]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Return empty answers."""
        prompts = self.prompts([request.args[0] for request in requests])
        for request, ids in zip(requests, prompts, strict=True):
            tokens = int(self.generation(request.args[1])["max_gen_toks"])
            read = len(ids) if self.limit is None else min(len(ids), self.limit - tokens)
            self.generated = self.generated.larger(Generated(read, tokens))
        return ["" for _ in requests]


def _own_start(tokenizer: Any) -> list[int]:
    """Return what the tokenizer itself puts before a text: the token that begins one, or nothing."""
    ids = tokenizer("a")["input_ids"]
    return ids[:1] if tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id] else []
