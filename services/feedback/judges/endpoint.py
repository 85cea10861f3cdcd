"""Calls an OpenAI-compatible chat endpoint through the openai SDK, with bounded retries, since it is unreliable and paid.

The SDK retries twice after time-outs, lost connections, 408, 409, 429 and 5xx, with jittered backoff or as Retry-After says
if that is at most two minutes; then the question has no answer. An error that no retry can cure (a wrong key, an unknown
model) ends the step at once as a user's fault. Answers are bounded in size and time (`transport.py`) and validated here,
since the SDK does not validate them. No message quotes an answer, because the author of the job chose the endpoint.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import TypedDict, cast

import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.lines import Message
from schemas.recipes.feedback import JudgeSettings
from services.chassis.executor.child import UserFault
from services.chassis.storage.sources.allowed import AllowedSources
from services.chassis.storage.sources.reaching import Guarded, SourceRefused
from services.feedback.judges.answer_cache import Answer
from services.feedback.judges.keys import endpoint_fault, endpoint_url, judge_fault
from services.feedback.judges.transport import AnswerRefused, JudgeTransport

_RETRIES = 2
_CONNECT_SECONDS = 10.0
_ANSWER_BYTES = 4 * 1024 * 1024
_OF_THIS_TEXT = (400, 413, 422)
"""HTTP statuses that may concern a single question, for example one that is too long."""


class Form(TypedDict, total=False):
    """The optional parameters of a request."""

    temperature: float
    max_tokens: int
    logprobs: bool
    top_logprobs: int


_FORMS: tuple[Form, ...] = (
    {"temperature": 0, "max_tokens": 8, "logprobs": True, "top_logprobs": 5},
    {"temperature": 0, "max_tokens": 8},
    {},
)
"""Endpoints differ in the parameters that they accept; the first of these forms that is accepted is used."""


class JudgeAway(Exception):
    """The endpoint does not work at present; the step may be retried later."""


class _NoAnswer(Exception):
    """The last attempt gave no answer; `status` is that of the HTTP response, if there was one."""

    def __init__(self, status: int | None = None) -> None:
        super().__init__()
        self.status = status


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Alternative(_Lenient):
    token: str
    logprob: float


class _Token(_Alternative):
    top_logprobs: list[_Alternative] = Field(default_factory=list)


class _Logprobs(_Lenient):
    content: list[_Token] | None = None


class _Turn(_Lenient):
    content: str | None = None


class _Choice(_Lenient):
    message: _Turn
    logprobs: _Logprobs | None = None


class _Completion(_Lenient):
    choices: list[_Choice] = Field(min_length=1)


class Endpoint:
    """One model behind one base URL; `async with` opens and closes its connections."""

    def __init__(self, settings: JudgeSettings, key: str | None, allowed: AllowedSources, form: Form | None = None) -> None:
        self._settings = settings
        seconds = settings.timeout_seconds
        timeout = httpx2.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
        transport = JudgeTransport(Guarded(allowed), key, seconds, _ANSWER_BYTES)
        self._client = AsyncOpenAI(
            api_key="sent by the transport",
            base_url=endpoint_url(settings, allowed),
            max_retries=_RETRIES,
            timeout=timeout,
            http_client=httpx2.AsyncClient(transport=transport, timeout=timeout),
        )
        self.form = form
        """The form of requests that it has accepted, also before; None if it is still to be found."""
        self.last_failure = ""
        """Description of the last failure; it contains nothing of a response or of the key."""

    async def __aenter__(self) -> "Endpoint":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def first(self, question: Sequence[Message]) -> Answer | None:
        """Ask a question, which determines the form that the endpoint accepts and whether it works at all.

        Returns None if it refuses this question in every form. Raises UserFault if it cannot be reached or is no such endpoint,
        JudgeAway if it fails only temporarily.
        """
        known = self.form
        empty: tuple[Form, Answer] | None = None
        for form in _FORMS if known is None else (known, *(form for form in _FORMS if form != known)):
            try:
                answer = self._read(await self._content(question, form))
            except _NoAnswer as none:
                self._require_refusal(none)
                continue
            if answer is None:
                raise judge_fault("endpoint", self._settings.endpoint, self.last_failure,
                                  "give the base URL of an OpenAI-compatible API, with /v1")  # fmt: skip
            if answer.text.strip():
                self.form = form
                return answer
            empty = form, answer  # a reasoning model needs more tokens than the form allows
        if empty is None:
            return None
        self.form = empty[0] if known is None else known
        return empty[1]

    def _require_refusal(self, none: _NoAnswer) -> None:
        """Raise unless the endpoint works and only refuses what it was asked."""
        if none.status is None:
            raise judge_fault("endpoint", self._settings.endpoint, f"the judge cannot be reached: {self.last_failure}",
                              "start it, or correct the URL (it ends in /v1 with most servers)") from None  # fmt: skip
        if none.status not in _OF_THIS_TEXT:
            raise JudgeAway(f"the judge fails at present: {self.last_failure}") from None

    def refusal(self) -> UserFault:
        """Return the fault of an endpoint that refuses every question."""
        return judge_fault("model", self._settings.model, f"the judge refuses the request: {self.last_failure}",
                           "name a chat model that this endpoint serves")  # fmt: skip

    async def ask(self, question: Sequence[Message]) -> Answer | None:
        """Return an answer, or None if there is none after the last retry; `last_failure` says why."""
        if self.form is None:
            raise RuntimeError("ask the first question by `first`")
        try:
            return self._read(await self._content(question, self.form))
        except _NoAnswer:
            return None

    async def _content(self, question: Sequence[Message], form: Form) -> bytes:
        """The body of a successful response. Raises _NoAnswer, and UserFault for an error that no retry can cure."""
        messages = [{"role": turn.role, "content": turn.content} for turn in question]
        try:
            answer = await self._client.chat.completions.with_raw_response.create(
                model=str(self._settings.model), messages=cast(list[ChatCompletionMessageParam], messages), **form
            )
        except SourceRefused as refused:
            raise endpoint_fault(self._settings, refused.refusal) from None
        except AnswerRefused as refused:
            self.last_failure = f"the answer is refused: {refused}"
            raise _NoAnswer from None
        except APIConnectionError as error:
            self.last_failure = type(error.__cause__).__name__  # its text may repeat what was received
            raise _NoAnswer from None
        except APIStatusError as error:
            status = error.status_code
            self.last_failure = _status(status)
            if status in (408, 429, *_OF_THIS_TEXT) or status >= 500:
                raise _NoAnswer(status) from None
            raise self._status_fault(status) from None
        return answer.content

    def _status_fault(self, status: int) -> UserFault:
        settings = self._settings
        if status in (401, 403):
            name = settings.api_key_env
            remedy = (
                "put a valid key into this variable of the feedback service"
                if name
                else "name the variable that holds a key"
            )
            return judge_fault("api_key_env", name, f"the judge refuses the key: {self.last_failure}", remedy)
        remedy = "correct the base URL (it ends in /v1 with most servers) or feedback.judge.model"
        return judge_fault("endpoint", settings.endpoint, f"the judge refuses the request: {self.last_failure}", remedy)

    def _read(self, content: bytes) -> Answer | None:
        try:
            completion = _Completion.model_validate_json(content)
        except ValidationError:
            self.last_failure = f"the answer ({len(content)} bytes) is not a chat completion"
            return None
        choice = completion.choices[0]
        tokens = (choice.logprobs.content if choice.logprobs else None) or []
        positions = tuple(
            {token.token: token.logprob, **{other.token: other.logprob for other in token.top_logprobs}} for token in tokens
        )
        return Answer(text=choice.message.content or "", positions=positions)


def _status(status: int) -> str:
    """HTTP status with its standard phrase; the server's own phrase is not used."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    led = " (redirects are not followed)" if 300 <= status < 400 else ""
    return f"HTTP {status} {phrase}".rstrip() + led
