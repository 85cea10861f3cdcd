"""Why: how commands talk to the HTTP edge: a refusal ends in its own words and a fitting exit code, a stream is resumed."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx

from services.cli.exits import Exit

_TIMEOUT = httpx.Timeout(20.0)
_SILENCE_SECONDS = 45.0
"""Streams say something every 15 s."""
_RESUME_SECONDS = 60.0


class Refused(Exception):
    """The edge refused, with a problem document (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        title, detail = problem.get("title", f"HTTP {status}"), problem.get("detail", "")
        super().__init__(f"{title}: {detail}" if detail else str(title))
        self.status, self.problem = status, problem

    @property
    def exit(self) -> Exit:
        """What the command's exit code says about it."""
        return {404: Exit.NOT_FOUND, 503: Exit.UNREACHABLE}.get(self.status, Exit.FAILED)


@dataclass(frozen=True)
class StreamEvent:
    """One server-sent event."""

    name: str
    data: Any
    id: str | None


class Edge:
    """A client of the routes under `/api/v1`. Raises Refused, and httpx.TransportError where nothing answers."""

    def __init__(self, address: str) -> None:
        self._http = httpx.Client(base_url=f"{address}/api/v1", timeout=_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **query: object) -> Any:
        """JSON of a GET; arguments that are None are left out."""
        params = {name: str(value) for name, value in query.items() if value is not None}
        return _answer(self._http.get(path, params=params))

    def post(self, path: str, body: object = None) -> Any:
        """JSON of a POST."""
        return _answer(self._http.post(path, json=body))

    def stream(self, path: str) -> Iterator[StreamEvent]:
        """Server-sent events until the one called `end`; a broken stream is taken up where it was, for a while."""
        last: str | None = None
        patience = time.monotonic() + _RESUME_SECONDS
        while True:
            try:
                for event in self._events(path, last):
                    patience = time.monotonic() + _RESUME_SECONDS
                    if event is None:
                        continue
                    last = event.id or last
                    yield event
                    if event.name == "end":
                        return
            except httpx.TransportError:
                if time.monotonic() > patience:
                    raise
            except Refused as refusal:
                if refusal.status != 503 or time.monotonic() > patience:
                    raise
            time.sleep(1)

    def _events(self, path: str, last: str | None) -> Iterator[StreamEvent | None]:
        """None where the stream says no more than that it lives."""
        headers = {"Last-Event-ID": last} if last else {}
        timeout = httpx.Timeout(_TIMEOUT.connect, read=_SILENCE_SECONDS)
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as answer:
            if answer.is_error:
                answer.read()
                _answer(answer)
            fields: dict[str, str] = {}
            for line in _lines(answer):
                name, _, value = line.partition(": ")
                if name:
                    fields[name] = value
                elif line:
                    yield None
                elif "data" in fields:
                    yield StreamEvent(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id"))
                    fields = {}


def _lines(answer: httpx.Response) -> Iterator[str]:
    """Those that a stream of events has; to httpx a line also ends where a text that somebody sent us has U+2028 or U+0085."""
    held = ""
    for text in answer.iter_text():
        *lines, held = (held + text).split("\n")
        yield from lines


def _answer(answer: httpx.Response) -> Any:
    if answer.is_success:
        return answer.json()
    try:
        problem = answer.json()
    except ValueError:
        problem = {"title": f"HTTP {answer.status_code}", "detail": answer.text[:500]}
    raise Refused(answer.status_code, problem if isinstance(problem, dict) else {})
