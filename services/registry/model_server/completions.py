"""Writes answers in OpenAI's form, whole or as they grow."""

import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from services.registry.model_server.answer import TokenLogprob, Update
from services.registry.model_server.asking import Asked
from services.registry.model_server.errors import ApiError

Fields = dict[str, Any]


class Form(Protocol):
    """One of the two kinds of completions."""

    prefix: str
    whole: str
    part: str

    def choice(self, asked: Asked, number: int, update: Update) -> Fields:
        """Return a finished answer."""

    def opening(self, number: int) -> Fields | None:
        """Return what a stream begins an answer with."""

    def delta(self, asked: Asked, number: int, update: Update) -> Fields:
        """Return the next part of an answer."""


class ChatForm:
    """`POST /v1/chat/completions`."""

    prefix, whole, part = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, asked: Asked, number: int, update: Update) -> Fields:
        """Return a finished answer."""
        message = {"role": "assistant", "content": update.text, "refusal": None}
        return {"index": number, "message": message, **self._rest(asked, number, update)}

    def opening(self, number: int) -> Fields | None:
        """Return what a stream begins an answer with."""
        delta = {"role": "assistant", "content": ""}
        return {"index": number, "delta": delta, "logprobs": None, "finish_reason": None}

    def delta(self, asked: Asked, number: int, update: Update) -> Fields:
        """Return the next part of an answer."""
        delta = {"content": update.text} if update.text else {}
        return {"index": number, "delta": delta, **self._rest(asked, number, update)}

    def _rest(self, asked: Asked, number: int, update: Update) -> Fields:
        told = None
        if asked.answers[number].sampling.logprobs is not None:
            told = {"content": [self._token(asked, token) for token in update.logprobs], "refusal": None}
        return {"logprobs": told, "finish_reason": update.finish}

    def _token(self, asked: Asked, token: TokenLogprob) -> Fields:
        top = [_named(asked, number, logprob) for number, logprob in token.top]
        return {**_named(asked, token.token, token.logprob), "top_logprobs": top}


class TextForm:
    """`POST /v1/completions`."""

    prefix, whole, part = "cmpl", "text_completion", "text_completion"

    def choice(self, asked: Asked, number: int, update: Update) -> Fields:
        """Return a finished answer."""
        wanted = asked.answers[number].sampling.logprobs is not None
        told = self._logprobs(asked, update.logprobs) if wanted else None
        return {"index": number, "text": update.text, "logprobs": told, "finish_reason": update.finish}

    def opening(self, number: int) -> Fields | None:
        """Return what a stream begins an answer with."""
        return None

    def delta(self, asked: Asked, number: int, update: Update) -> Fields:
        """Return the next part of an answer."""
        return self.choice(asked, number, update)

    def _logprobs(self, asked: Asked, tokens: Sequence[TokenLogprob]) -> Fields:
        said = [_named(asked, token.token, token.logprob)["token"] for token in tokens]
        top = [{_named(asked, *pair)["token"]: pair[1] for pair in token.top} for token in tokens]
        places = [sum(map(len, said[:number])) for number in range(len(said))]
        return {
            "tokens": said,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": top,
            "text_offset": places,
        }


def _named(asked: Asked, token: int, logprob: float) -> Fields:
    text = str(asked.served.chat.tokenizer.decode([token]))
    return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}


async def whole(asked: Asked, form: Form) -> Fields:
    """Return the response when all answers are done. Raises ApiError if one failed."""
    ends: dict[int, Update] = {}
    while len(ends) < len(asked.answers):
        number, update = await asked.updates.get()
        if update.finish == "error":
            raise _failed()
        if update.finish is not None:
            ends[number] = update
    choices = [form.choice(asked, number, ends[number]) for number in sorted(ends)]
    tokens = sum(update.tokens for update in ends.values())
    return {**_head(asked, form, form.whole), "choices": choices, "usage": _usage(asked, tokens)}


async def parts(asked: Asked, form: Form, *, usage: bool) -> AsyncIterator[bytes]:
    """Yield the events of a stream; a failure is its last one. `usage`: whether the tokens are told at the end."""
    head = _head(asked, form, form.part)
    for number in range(len(asked.answers)):
        if opening := form.opening(number):
            yield _event({**head, "choices": [opening]})
    left, tokens = len(asked.answers), 0
    while left:
        number, update = await asked.updates.get()
        if update.finish == "error":
            yield _event(json.loads(bytes(_failed().response().body)))
            return
        yield _event({**head, "choices": [form.delta(asked, number, update)]})
        left, tokens = left - (update.finish is not None), tokens + update.tokens
    if usage:
        yield _event({**head, "choices": [], "usage": _usage(asked, tokens)})
    yield b"data: [DONE]\n\n"


def _failed() -> ApiError:
    return ApiError(500, "the model failed on this request, or was unloaded; send it again", code="generation_failed")


def _head(asked: Asked, form: Form, kind: str) -> Fields:
    return {
        "id": f"{form.prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": asked.served.name,
        "system_fingerprint": asked.served.sha256[:16],
    }


def _usage(asked: Asked, tokens: int) -> Fields:
    prompt = asked.prompt_tokens
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def _event(content: Fields) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"
