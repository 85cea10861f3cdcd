"""Asks a program that may not answer, may answer without end, or may answer with garbage: always in time and in bounds."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx2

from services.chassis.process.redaction import redacted
from services.registry.bounded import bounded
from services.registry.deploying.faults import Away

ANSWER_BYTES = 8 * 1024 * 1024
_WORDS = 300
AWAY = "NotAnswering"


class Reply(NamedTuple):
    """What came back."""

    status: int
    body: bytes

    @property
    def words(self) -> str:
        """The first words of the body, on one line and without secrets."""
        return redacted(" ".join(self.body[: 4 * _WORDS].decode("utf-8", "replace").split())[:_WORDS])


@dataclass(frozen=True, slots=True)
class Asking:
    """Asks one program, which messages call `name`."""

    name: str
    http: httpx2.AsyncClient

    async def send(self, method: str, path: str, seconds: float, **content: Any) -> Reply:
        """Return its reply, whatever the status. Raises Away if none comes in time."""
        try:
            async with asyncio.timeout(seconds), self.http.stream(method, path, timeout=None, **content) as answer:
                body = await bounded(answer, ANSWER_BYTES)
                status = answer.status_code
        except TimeoutError:
            raise Away(AWAY, f"{self.name} did not answer {path} within {seconds:g} s; see to it") from None
        except httpx2.HTTPError as error:
            what = f"{self.name} cannot be reached ({type(error).__name__}: {redacted(str(error))[:_WORDS]})"
            raise Away(AWAY, f"{what}; start it, or correct its address in the settings") from None
        if body is None:
            raise Away(AWAY, f"{self.name} answers {path} with more than {ANSWER_BYTES} bytes; see what listens there")
        return Reply(status, body)


def client(address: str, key: str | None, headers: Mapping[str, str] | None = None, **more: Any) -> httpx2.AsyncClient:
    """Return a client that follows no redirect and uses no proxy, so that the key goes only to the address."""
    sent = {**(headers or {}), **({"authorization": f"Bearer {key}"} if key else {})}
    return httpx2.AsyncClient(base_url=address, headers=sent, trust_env=False, follow_redirects=False, **more)
