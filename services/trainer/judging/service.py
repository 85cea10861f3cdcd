"""Asks the feedback service over HTTP, with a time-out and retries; only `SERVICE_VARIABLE` says where it is."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx2
from pydantic import ValidationError

from schemas.judgements import JUDGEMENTS, JudgementRequest, Judgements
from schemas.reasons import Reason, shortened
from services.chassis.executor.child import UserFault

SERVICE_VARIABLE = "NEUROWEAVER_TRAINER_FEEDBACK_URL"
"""Environment variable with the base address of the feedback service."""
_RETRIES = 2
_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 2.0, 30.0
_LOOK_SECONDS = 0.5
_SPARE_SECONDS = 10.0
"""The service ends a judge that is too slow, and answers that; only a lost answer takes longer."""
_AGAIN = (408, 429, 500, 502, 503, 504)
_SHOWN = 500
_Found = TypeVar("_Found")


class JudgementsUnavailable(Exception):
    """The judge gave no scores, also when it was asked again; the message says why."""


class JudgementsRefused(Exception):
    """The feedback service says that the judge cannot be used as it is set."""

    def __init__(self, reasons: tuple[Reason, ...]) -> None:
        super().__init__("; ".join(map(str, reasons)))
        self.reasons = reasons


class _Failed(Exception):
    """One request failed."""

    def __init__(self, said: str, wait: float = _WAIT_SECONDS, *, again: bool = True) -> None:
        super().__init__(said)
        self.wait, self.again = wait, again


def address_of_service(field: str) -> str:
    """Return the base address of the feedback service. Raises UserFault for the reward `field` if the operator has not set it."""
    address = os.environ.get(SERVICE_VARIABLE, "").strip().rstrip("/")
    if not address:
        what = "the reward asks a judge, and this trainer does not know where the feedback service is"
        remedy = f"have the operator set {SERVICE_VARIABLE} for the trainer, for example to http://feedback:8001"
        raise UserFault(Reason(field=field, message=what, remedy=remedy))
    return address


def ask(address: str, asked: JudgementRequest, tick: Callable[[], None]) -> Judgements:
    """Return the scores. `tick` is called while they are awaited; an exception from it ends the wait.

    Raises JudgementsRefused, and JudgementsUnavailable after the last retry.
    """
    return asyncio.run(_asked(f"{address}/api/v1{JUDGEMENTS}", asked, tick))


async def _asked(url: str, asked: JudgementRequest, tick: Callable[[], None]) -> Judgements:
    content = asked.model_dump_json(exclude_none=True).encode()
    timeout = httpx2.Timeout(asked.timeout_seconds + _SPARE_SECONDS, connect=min(asked.timeout_seconds, _SPARE_SECONDS))
    async with httpx2.AsyncClient(timeout=timeout, trust_env=False) as http:
        for number in range(1 + _RETRIES):
            try:
                found = await _while_ticking(_once(http, url, content), tick)
                if len(found.scores) != len(asked.texts):
                    raise _Failed(f"{len(found.scores)} scores came for {len(asked.texts)} texts")
                return found
            except _Failed as failed:
                if number == _RETRIES or not failed.again:
                    raise JudgementsUnavailable(str(failed)) from failed
                await _while_ticking(asyncio.sleep(failed.wait), tick)
    raise AssertionError("the last request returns or raises")


async def _once(http: httpx2.AsyncClient, url: str, content: bytes) -> Judgements:
    try:
        answer = await http.post(url, content=content, headers={"Content-Type": "application/json"})
    except httpx2.TimeoutException as error:
        raise _Failed("the feedback service did not answer in time") from error
    except httpx2.HTTPError as error:
        raise _Failed(f"the feedback service at {url} cannot be reached ({type(error).__name__})") from error
    if answer.status_code == 422:
        raise JudgementsRefused(_reasons(answer))
    if not answer.is_success:
        raise _Failed(_said(answer), _wait(answer), again=answer.status_code in _AGAIN)
    try:
        return Judgements.model_validate_json(answer.content)
    except ValidationError as error:
        raise _Failed(f"{url} answers, but not as the feedback service does", again=False) from error


async def _while_ticking(work: Awaitable[_Found], tick: Callable[[], None]) -> _Found:
    """Await `work`, and call `tick` meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            tick()
            await asyncio.wait({task}, timeout=_LOOK_SECONDS)
        return task.result()
    finally:
        task.cancel()


def _reasons(answer: httpx2.Response) -> tuple[Reason, ...]:
    try:
        found = tuple(Reason.model_validate(one) for one in answer.json().get("reasons", ()))
    except (ValueError, AttributeError, TypeError):
        found = ()
    return found or (Reason(field="feedback", message=_said(answer), remedy="correct the judge's settings"),)


def _said(answer: httpx2.Response) -> str:
    """Return status and words of a refusal."""
    try:
        problem = answer.json()
        said = f"{problem['title']}: {problem['detail']}"
    except (ValueError, KeyError, TypeError):
        said = "no problem document"
    return shortened(f"the feedback service answers HTTP {answer.status_code}, {said}", _SHOWN)


def _wait(answer: httpx2.Response) -> float:
    given = answer.headers.get("Retry-After", "")
    return min(float(given), _LONGEST_WAIT_SECONDS) if given.isdigit() else _WAIT_SECONDS
