"""A stream of events is read as it was written, whatever a text that somebody sent us has in it."""

import json

import httpx
import pytest

from services.chassis.web.streams import EventStream
from services.cli.edge import Edge, StreamEvent

SIGNS = "a\u2028b\u2029c\u0085d\x0b\x0c\x1c\x1d\x1e\n\r \U0001f600"


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_an_event_is_read_as_it_was_written(pieces: int) -> None:
    job = json.dumps({"requester": SIGNS}, ensure_ascii=False)
    said = f": ping\n\nevent: job\ndata: {job}\nid: 1\n\nevent: end\ndata: {{}}\n\n".encode()

    def answer(_request: httpx.Request) -> httpx.Response:
        content = (said[at : at + pieces] for at in range(0, len(said), pieces))
        return httpx.Response(200, headers={"content-type": f"{EventStream.media_type}; charset=utf-8"}, content=content)

    with Edge("http://nowhere") as edge:
        edge._http = httpx.Client(base_url="http://nowhere", transport=httpx.MockTransport(answer))
        events = list(edge.stream("/training/a/events"))
    assert events == [StreamEvent("job", {"requester": SIGNS}, "1"), StreamEvent("end", {}, None)]
