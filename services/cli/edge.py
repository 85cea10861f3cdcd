"""How commands talk to the HTTP edge: a refusal ends in its own words and a fitting exit code, a stream is resumed."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import httpx2
from pydantic import TypeAdapter, ValidationError

from services.cli.exits import Exit

_TIMEOUT = httpx2.Timeout(20.0)
_SILENCE_SECONDS = 45.0
"""The longest silence of a stream, which sends a comment every 15 s."""
_RESUME_SECONDS = 60.0
_EVENT_BYTES = 16 * 1024 * 1024
_PROBLEM = "application/problem+json"
_AWAY = (502, 503, 504)
"""Statuses that a proxy returns while the services behind it are away."""
_T = TypeVar("_T")
_Item = TypeVar("_Item", covariant=True)
_PAGE = 200
NONE: Mapping[str, str] = {}
"""No headers."""


class Paged(Protocol[_Item]):
    """A page of a list."""

    @property
    def items(self) -> tuple[_Item, ...]:
        """The items on the page."""

    @property
    def next(self) -> str | None:
        """Cursor of the next page; None at the end."""


class RequestRefused(Exception):
    """The service refused the request with a problem document (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        title, detail = problem.get("title", f"HTTP {status}"), problem.get("detail", "")
        super().__init__(f"{title}: {detail}" if detail else str(title))
        self.status, self.problem = status, problem

    @property
    def exit(self) -> Exit:
        """The exit code of the command."""
        return {404: Exit.NOT_FOUND, 503: Exit.UNREACHABLE}.get(self.status, Exit.FAILED)


class NotOurs(RequestRefused):
    """Another program answered, or a version that this one does not understand."""

    def __init__(self, answer: httpx2.Response, said: str) -> None:
        detail = (
            f"{answer.request.url} answers, but not as NeuroWeaver does: {said}; see `neuroweaver doctor`, or correct "
            "NEUROWEAVER_HTTP, which must be only the base address, such as http://127.0.0.1:8001"
        )
        super().__init__(answer.status_code, {"title": "Another program answers", "detail": detail})

    @property
    def exit(self) -> Exit:
        """The exit code that says NeuroWeaver was not reached."""
        return Exit.UNREACHABLE


@dataclass(frozen=True)
class StreamEvent:
    """One server-sent event."""

    name: str
    data: Any
    id: str | None
    """The latest id that the stream sent."""


class Edge:
    """A client of the routes under `/api/v1`. Raises Refused, NotOurs, and httpx2.TransportError where nothing answers."""

    def __init__(self, address: str) -> None:
        self._http = httpx2.Client(base_url=f"{address}/api/v1", timeout=_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, view: type[_T], path: str, **query: object) -> _T:
        """Send a GET and return the answer as `view`; arguments that are None are not sent."""
        params = {name: str(value) for name, value in query.items() if value is not None}
        return _answer(view, self._http.get(path, params=params))

    def listed(self, page: type[Paged[_T]], path: str, most: int, **query: object) -> list[_T]:
        """Return the first items of a list, at most `most`, from as many pages as they take."""
        found: list[_T] = []
        cursor: str | None = None
        while len(found) < most:
            one = self.get(page, path, limit=min(_PAGE, most - len(found)), cursor=cursor, **query)
            found += one.items
            cursor = one.next
            if cursor is None:
                break
        return found

    def find(self, view: type[_T], path: str) -> _T | None:
        """Send a GET as `get` does; return None for what does not exist."""
        try:
            return self.get(view, path)
        except RequestRefused as refusal:
            if refusal.status == 404:
                return None
            raise

    def text(self, path: str) -> str:
        """Send a GET and return the answer's text."""
        answer = self._http.get(path)
        if not answer.is_success:
            raise _refusal(answer)
        return answer.text

    def post(self, view: type[_T], path: str, body: object = None, headers: Mapping[str, str] = NONE) -> _T:
        """Send a POST and return the answer as `view`."""
        return _answer(view, self._http.post(path, json=body, headers=headers))

    def put(self, view: type[_T], path: str, body: object, headers: Mapping[str, str] = NONE) -> _T:
        """Send a PUT and return the answer as `view`."""
        return _answer(view, self._http.put(path, json=body, headers=headers))

    def patch(self, view: type[_T], path: str, body: object) -> _T:
        """Send a PATCH and return the answer as `view`."""
        return _answer(view, self._http.patch(path, json=body))

    def delete(self, view: type[_T], path: str, headers: Mapping[str, str] = NONE, **query: str) -> _T:
        """Send a DELETE and return the answer as `view`."""
        return _answer(view, self._http.delete(path, params=query, headers=headers))

    def stream(self, path: str) -> Iterator[StreamEvent]:
        """Yield server-sent events until `end`; a broken stream is resumed after its last event, for a limited time."""
        last = ""
        patience = time.monotonic() + _RESUME_SECONDS
        while True:
            try:
                with self._opened(path, last) as events:
                    try:
                        for event in events:
                            last = event.id
                            if event.data:
                                yield StreamEvent(event.event, event.json(), event.id or None)
                            if event.event == "end":
                                return
                    finally:
                        patience = time.monotonic() + _RESUME_SECONDS
            except httpx2.SSEError:
                raise
            except httpx2.TransportError:
                if time.monotonic() > patience:
                    raise
            except RequestRefused as refusal:
                if refusal.status != 503 or time.monotonic() > patience:
                    raise
            time.sleep(1)

    @contextmanager
    def _opened(self, path: str, last: str) -> Iterator[httpx2.EventSource]:
        """Open a stream that continues after the event with the id `last`."""
        headers = {"Last-Event-ID": last} if last else {}
        timeout = httpx2.Timeout(_TIMEOUT.connect, read=_SILENCE_SECONDS)
        with self._http.sse(path, headers=headers, timeout=timeout, max_event_size=_EVENT_BYTES) as events:
            if events.response.is_error:
                events.response.read()
                raise _refusal(events.response)
            yield events


def _answer(view: type[_T], answer: httpx2.Response) -> _T:
    if not answer.is_success:
        raise _refusal(answer)
    try:
        return TypeAdapter(view).validate_json(answer.content)
    except ValidationError as error:
        kind = answer.headers.get("Content-Type", "no content type").partition(";")[0]
        raise NotOurs(answer, f"{kind}, {error.error_count()} fields of {view.__name__} are not as expected") from error


def _refusal(answer: httpx2.Response) -> RequestRefused:
    """Return the refusal of the service; an answer that is not a problem document comes from another program, or from a
    proxy whose services are away."""
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict) and answer.headers.get("Content-Type", "").startswith(_PROBLEM):
        return RequestRefused(answer.status_code, problem)
    said = f"HTTP {answer.status_code} {answer.reason_phrase}".strip()
    if answer.status_code in _AWAY:
        return RequestRefused(503, {"title": said, "detail": f"{answer.request.url} answers that the services are away"})
    to = f" to {answer.headers['Location']}" if answer.is_redirect and "Location" in answer.headers else ""
    return NotOurs(answer, f"{said}{to}")
