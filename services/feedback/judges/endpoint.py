"""Why: speaks to an OpenAI-compatible chat endpoint as an unreliable, shared, paid thing: patiently, but not for ever.

Time-outs, lost connections, 408, 429 and 5xx are tried again twice, with jittered backoff or as Retry-After says; then there
is no answer. What no repetition can cure (a wrong key, an unknown model) ends the step as a user's fault at once.
Answers are bounded in size and time, and no message repeats one: whoever wrote the job chose who answers.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx2
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.recipes import JudgeSettings
from services.chassis.executor.child import UserFault
from services.chassis.sources.allowed import Allowed
from services.chassis.sources.reaching import Guarded, Refused
from services.feedback.judges.journal import Answer
from services.feedback.judges.keys import endpoint_fault, endpoint_url, judge_fault
from services.feedback.rows import Message

_TRIES = 3
_LONGEST_WAIT_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
_ANSWER_BYTES = 4 * 1024 * 1024
_OF_THIS_TEXT = (400, 413, 422)
"""Statuses that may concern one question only, for example one that is too long."""
_FORMS: tuple[Mapping[str, object], ...] = (
    {"temperature": 0, "max_tokens": 8, "logprobs": True, "top_logprobs": 5},
    {"temperature": 0, "max_tokens": 8},
    {},
)
"""What is asked for besides the answer; endpoints differ in what they accept. The richest form that is accepted is kept."""


_Result = httpx2.Response | httpx2.RequestError


class _TooLarge(httpx2.RequestError):
    """An answer that no judge gives to a question of ours."""


class JudgeAway(Exception):
    """The endpoint does not work at present; the step may be tried again later."""


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

    def __init__(self, settings: JudgeSettings, key: str | None, allowed: Allowed, backoff_seconds: float) -> None:
        self._settings, self._backoff = settings, backoff_seconds
        headers = {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})}
        timeout = httpx2.Timeout(settings.timeout_seconds, connect=min(settings.timeout_seconds, _CONNECT_SECONDS))
        self._url = endpoint_url(settings, allowed)
        self._client = httpx2.AsyncClient(headers=headers, timeout=timeout, transport=Guarded(allowed))
        self._form: Mapping[str, object] | None = None
        self.last_failure = ""
        """What went wrong last, in words of ours: nothing of an answer, nor of the key."""

    async def __aenter__(self) -> "Endpoint":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def first(self, question: Sequence[Message]) -> Answer:
        """The first question settles which form the endpoint accepts and whether it works at all.

        Raises UserFault where it cannot be reached or refuses every form, JudgeAway where it is only out of order.
        """
        for form in _FORMS:
            response = await self._patiently(question, form)
            if not isinstance(response, httpx2.Response):
                raise judge_fault("endpoint", self._settings.endpoint, f"the judge cannot be reached: {self.last_failure}",
                                  "start it, or correct the URL (it ends in /v1 with most servers)") from response  # fmt: skip
            if response.is_success:
                answer = self._read(response)
                if answer is None:
                    raise judge_fault("endpoint", self._settings.endpoint, self.last_failure,
                                      "give the base URL of an OpenAI-compatible API, with /v1")  # fmt: skip
                if not answer.text.strip() and form is not _FORMS[-1]:
                    continue  # a model that thinks first needs more tokens than the form grants
                self._form = form
                return answer
            if response.status_code not in _OF_THIS_TEXT:
                raise JudgeAway(f"the judge does not work at present: {self.last_failure}")
        raise judge_fault("model", self._settings.model, f"the judge refuses the request: {self.last_failure}",
                          "name a chat model that this endpoint serves")  # fmt: skip

    async def ask(self, question: Sequence[Message]) -> Answer | None:
        """An answer, or None where there is none after the last try; `last_failure` says why."""
        if self._form is None:
            raise RuntimeError("ask the first question by `first`")
        response = await self._patiently(question, self._form)
        return self._read(response) if isinstance(response, httpx2.Response) and response.is_success else None

    async def _patiently(self, question: Sequence[Message], form: Mapping[str, object]) -> _Result:
        """The last of at most three tries. Raises UserFault for what no repetition can cure."""
        messages = [{"role": turn.role, "content": turn.content} for turn in question]
        body = {"model": self._settings.model, "messages": messages, **form}
        tries = 0
        while True:
            result: _Result
            try:
                result = await self._post(body)
            except Refused as refused:
                raise endpoint_fault(self._settings, refused.refusal) from None
            except httpx2.RequestError as error:
                result = error
                self.last_failure = _worded(error)
            tries += 1
            wait = self._wait(result, self._backoff * 2.0**tries)
            if wait is None or tries == _TRIES:
                return result
            await asyncio.sleep(wait)

    async def _post(self, body: Mapping[str, object]) -> httpx2.Response:
        """The whole answer, within the time-out of one request. Raises httpx2.RequestError, and Refused."""
        try:
            async with (
                asyncio.timeout(self._settings.timeout_seconds),
                self._client.stream("POST", self._url, json=body) as response,
            ):
                if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise _TooLarge("it is compressed, which was not asked for")
                read = bytearray()
                async for block in response.aiter_raw():
                    read += block
                    if len(read) > _ANSWER_BYTES:
                        raise _TooLarge(f"it is longer than {_ANSWER_BYTES} bytes")
        except TimeoutError:
            raise httpx2.ReadTimeout(f"no whole answer within {self._settings.timeout_seconds:g} s") from None
        return httpx2.Response(response.status_code, headers=response.headers, content=bytes(read))

    def _wait(self, result: _Result, longest: float) -> float | None:
        """Seconds until the next try; None where there is no use in one. Raises UserFault."""
        backoff = longest * random.uniform(0.5, 1.0)  # noqa: S311 (jitter, no secret)
        if isinstance(result, _TooLarge):
            return None
        if not isinstance(result, httpx2.Response):
            return backoff
        if result.is_success:
            return None
        status = result.status_code
        self.last_failure = _status(status)
        if status in (408, 429) or status >= 500:
            asked = _retry_after(result.headers.get("Retry-After"))
            return backoff if asked is None else asked if asked <= _LONGEST_WAIT_SECONDS else None
        if status in _OF_THIS_TEXT:
            return None
        raise self._refusal(status)

    def _refusal(self, status: int) -> UserFault:
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

    def _read(self, response: httpx2.Response) -> Answer | None:
        try:
            completion = _Completion.model_validate_json(response.content)
        except ValidationError:
            self.last_failure = f"the answer ({len(response.content)} bytes) is no chat completion"
            return None
        choice = completion.choices[0]
        tokens = (choice.logprobs.content if choice.logprobs else None) or []
        positions = tuple(
            {token.token: token.logprob, **{other.token: other.logprob for other in token.top_logprobs}} for token in tokens
        )
        return Answer(text=choice.message.content or "", positions=positions)


def _worded(error: httpx2.RequestError) -> str:
    """Its type, and its text where that is ours: a library's text may repeat what was received."""
    own = isinstance(error, _TooLarge)
    return f"the answer is refused: {error}" if own else type(error).__name__


def _status(status: int) -> str:
    """HTTP status with its standard phrase; what the server says instead of it is the server's."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
    led = " (redirects are not followed)" if 300 <= status < 400 else ""
    return f"HTTP {status} {phrase}".rstrip() + led


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date); None where it says nothing."""
    if not value:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, ((until if until.tzinfo else until.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds())
