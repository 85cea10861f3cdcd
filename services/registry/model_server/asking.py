"""Turns a request into answers on their way: its tokens, its limits, and the random numbers of each answer."""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from services.language_models.chat_format.templates import ChatFault
from services.language_models.generation import Rng, rng
from services.registry.model_server.answer import Answer, Sampling, Update
from services.registry.model_server.decoder import Closed, Full
from services.registry.model_server.errors import ApiError
from services.registry.model_server.growing_text import TextForm
from services.registry.model_server.models import ServedModel
from services.registry.model_server.requests import ChatRequest, CompletionRequest

_SEED_BITS = 64


@dataclass(frozen=True, slots=True)
class Asked:
    """The answers to one request, and what they tell: the number of an answer with each update."""

    served: ServedModel
    answers: Sequence[Answer]
    prompt_tokens: int
    updates: "asyncio.Queue[tuple[int, Update]]"

    def cancel(self) -> None:
        """Let the answers leave their batch: nobody waits for them."""
        for answer in self.answers:
            answer.cancelled = True


def chat_prompt(served: ServedModel, request: ChatRequest) -> list[int]:
    """Return the tokens of a chat up to its answer. Raises ApiError for a chat that was refused in training, too."""
    messages = [turn.message() for turn in request.messages]
    try:
        return served.chat.prompt(messages, tuple(request.tools or ()))
    except ChatFault as fault:
        raise ApiError(400, f"{fault}; {fault.remedy}", param="messages", code="chat_refused") from fault


def text_prompts(served: ServedModel, request: CompletionRequest) -> list[list[int]]:
    """Return the tokens of the texts to continue, with the special tokens that the tokenizer begins a text with."""
    found = [list(served.chat.tokenizer(text)["input_ids"]) for text in request.prompts]
    return [ids or [served.chat.pad_id] for ids in found]


def ask(
    served: ServedModel, request: ChatRequest | CompletionRequest, prompts: Sequence[Sequence[int]], most: int
) -> Asked:
    """Queue the answers to a request; `most` is the limit of the tokens of any answer. Raises ApiError."""
    updates: asyncio.Queue[tuple[int, Update]] = asyncio.Queue()
    seed = secrets.randbits(_SEED_BITS) if request.seed is None else request.seed % 2**_SEED_BITS
    form = _form(served, request)
    answers = [
        Answer(
            prompt,
            sampling := _sampling(served, request, prompt, most),
            _random(sampling, seed, number, way),
            form,
            bool(request.stream),
            _telling(updates, number * (request.n or 1) + way),
        )
        for number, prompt in enumerate(prompts)
        for way in range(request.n or 1)
    ]
    try:
        served.decoder.submit(answers)
    except Full:
        message = "the queue of this model is full; send the request again shortly"
        raise ApiError(429, message, code="queue_full") from None
    except Closed:
        raise ApiError(503, f"{served.name} is being unloaded", param="model", code="model_draining") from None
    return Asked(served, answers, sum(map(len, prompts)), updates)


def _random(sampling: Sampling, seed: int, number: int, way: int) -> Rng:
    """Return the random numbers of an answer: those that sampling has for the same seed, prompt number and way."""
    return rng(seed, number, way) if sampling.temperature else None


def _form(served: ServedModel, request: ChatRequest | CompletionRequest) -> TextForm:
    if isinstance(request, ChatRequest):
        return TextForm(served.chat.said, served.chat.bare, served.chat.around)
    return TextForm(served.chat.said, lambda text: text, ("", ""))


def _sampling(served: ServedModel, request: ChatRequest | CompletionRequest, prompt: Sequence[int], most: int) -> Sampling:
    room = most if served.context is None else served.context - len(prompt)
    wanted = min(room, most) if request.most_tokens is None else request.most_tokens
    if room < 1 or wanted > room:
        message = (
            f"the prompt has {len(prompt)} tokens and the answer may have {wanted}, but the model reads {served.context}"
        )
        raise ApiError(400, f"{message}; shorten the prompt or lower max_tokens", code="context_length_exceeded")
    if wanted > most:
        message = f"max_tokens is {wanted}, and this server gives answers of at most {most}"
        raise ApiError(400, message, param="max_tokens", code="max_tokens_exceeded")
    temperature = 1.0 if request.temperature is None else request.temperature
    return Sampling(wanted, temperature, request.top_p or 1.0, request.stops, request.told_logprobs)


def _telling(updates: "asyncio.Queue[tuple[int, Update]]", number: int) -> Callable[[Update], None]:
    loop = asyncio.get_running_loop()

    def tell(update: Update) -> None:
        loop.call_soon_threadsafe(updates.put_nowait, (number, update))

    return tell
