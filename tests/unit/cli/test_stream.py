"""A stream of events is read as it was written, whatever a text in it has, and taken up where it was, however long it was silent."""

import json
import time
from collections.abc import Iterator

import httpx2
import pytest

from services.chassis.serving.web.streams import EventStream
from services.cli.edge import Edge, StreamEvent
from services.cli.failures import explain

_STREAM = {"content-type": f"{EventStream.media_type}; charset=utf-8"}
SIGNS = "a\u2028b\u2029c\u0085d\x0b\x0c\x1c\x1d\x1e\n\r \U0001f600"


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_an_event_is_read_as_it_was_written(pieces: int) -> None:
    job = json.dumps({"requester": SIGNS}, ensure_ascii=False)
    said = f": ping\n\nevent: job\ndata: {job}\nid: 1\n\nevent: end\ndata: {{}}\n\n".encode()

    def answer(_request: httpx2.Request) -> httpx2.Response:
        content = (said[at : at + pieces] for at in range(0, len(said), pieces))
        return httpx2.Response(200, headers=_STREAM, content=content)

    with Edge("http://nowhere") as edge:
        edge._http = httpx2.Client(base_url="http://nowhere", transport=httpx2.MockTransport(answer))
        events = list(edge.stream("/training/a/events"))
    assert events == [StreamEvent("job", {"requester": SIGNS}, "1"), StreamEvent("end", {}, "1")]


def test_a_stream_that_had_no_news_for_long_is_taken_up_again_when_it_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    answers = 0

    def wait(seconds: float) -> None:
        nonlocal now
        now += seconds

    def told() -> Iterator[bytes]:
        yield b"event: job\ndata: {}\nid: 1\n\n"
        for _ in range(40):
            wait(15.0)
            yield b": ping\n\n"

    def answer(request: httpx2.Request) -> httpx2.Response:
        nonlocal answers
        answers += 1
        if answers == 1:
            return httpx2.Response(200, headers=_STREAM, content=told())
        if answers < 10:
            raise httpx2.ConnectError("it starts", request=request)
        assert request.headers["last-event-id"] == "1"
        return httpx2.Response(200, headers=_STREAM, content=b"event: end\ndata: {}\n\n")

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(time, "sleep", wait)
    with Edge("http://nowhere") as edge:
        edge._http = httpx2.Client(base_url="http://nowhere", transport=httpx2.MockTransport(answer))
        assert [event.name for event in edge.stream("/training/a/events")] == ["job", "end"]


def test_what_is_no_stream_of_events_is_said_at_once() -> None:
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(200, headers={"content-type": "text/html"}, content=b"<html>Welcome</html>")

    with Edge("http://nowhere") as edge:
        edge._http = httpx2.Client(base_url="http://nowhere", transport=httpx2.MockTransport(answer))
        with pytest.raises(httpx2.SSEError, match="text/event-stream") as raised:
            list(edge.stream("/training/a/events"))
    assert explain(raised.value) is not None
    assert len(asked) == 1
