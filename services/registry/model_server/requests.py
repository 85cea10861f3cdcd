"""The bodies of requests in OpenAI's form: what is understood is bounded, and what is not is refused by name, never left out silently."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from schemas.lines import Message

_NEUTRAL: tuple[Any, ...] = (None, 0, False, "", [], {}, "auto", "none", "default", {"type": "text"})
"""Values with which a field that is not supported asks for nothing."""
Stop = Annotated[str, Field(min_length=1, max_length=200)]
Name = Annotated[str, Field(min_length=1, max_length=300)]


class TextPart(BaseModel):
    """A part of a turn."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class Turn(BaseModel):
    """A turn of a chat."""

    model_config = ConfigDict(extra="forbid")

    role: Annotated[str, Field(min_length=1, max_length=50)]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[dict[str, JsonValue]] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: None = None

    def message(self) -> Message:
        """Return the turn as chat templates read it; arguments of tool calls become objects."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content or ())
        return Message(
            role=self.role,
            content=text,
            tool_calls=tuple(_with_object(call) for call in self.tool_calls or ()),
            reasoning=self.reasoning_content,
            name=self.name,
            tool_call_id=self.tool_call_id,
        )


def _with_object(call: dict[str, JsonValue]) -> dict[str, JsonValue]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(arguments := function.get("arguments"), str):
        return call
    try:
        read = json.loads(arguments)
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": read}}


class StreamOptions(BaseModel):
    """What a stream also tells."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False


class _Sampled(BaseModel):
    """What both kinds of completions have."""

    model_config = ConfigDict(extra="forbid")

    model: Name
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    n: int | None = Field(default=None, ge=1, le=16)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**64)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    metadata: dict[str, JsonValue] | None = None
    frequency_penalty: JsonValue = None
    presence_penalty: JsonValue = None
    logit_bias: JsonValue = None

    @field_validator("frequency_penalty", "presence_penalty", "logit_bias")
    @classmethod
    def _unsupported(cls, given: Any) -> Any:
        return neutral(given)

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop sequences."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


def neutral(given: Any) -> Any:
    """Return a value of a field that is not supported. Raises ValueError if it asks for something."""
    if given not in _NEUTRAL:
        raise ValueError("it is not supported by this server; leave it out")
    return given


class ChatRequest(_Sampled):
    """The body of `POST /v1/chat/completions`."""

    messages: list[Turn] = Field(min_length=1, max_length=2000)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: list[dict[str, JsonValue]] | None = Field(default=None, max_length=128)
    tool_choice: JsonValue = None
    response_format: JsonValue = None
    store: JsonValue = None
    service_tier: JsonValue = None

    @field_validator("tool_choice", "response_format", "store", "service_tier")
    @classmethod
    def _neutral(cls, given: Any) -> Any:
        return neutral(given)

    @property
    def most_tokens(self) -> int | None:
        """The most tokens of an answer."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def told_logprobs(self) -> int | None:
        """How many likeliest tokens are told beside each; None for no probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(_Sampled):
    """The body of `POST /v1/completions`."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=16)]
    logprobs: int | None = Field(default=None, ge=0, le=5)
    echo: JsonValue = None
    suffix: JsonValue = None
    best_of: JsonValue = None

    @field_validator("echo", "suffix")
    @classmethod
    def _neutral(cls, given: Any) -> Any:
        return neutral(given)

    @field_validator("best_of")
    @classmethod
    def _one(cls, given: Any) -> Any:
        return given if given == 1 else neutral(given)

    @property
    def prompts(self) -> list[str]:
        """The texts to continue."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    @property
    def most_tokens(self) -> int | None:
        """The most tokens of an answer."""
        return self.max_tokens

    @property
    def told_logprobs(self) -> int | None:
        """How many likeliest tokens are told beside each; None for no probabilities."""
        return self.logprobs
