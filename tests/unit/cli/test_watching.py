"""`jobs submit --watch` on an orchestrator that has published a request and not read it yet."""

from typing import Any, cast

import pytest

from services.cli import job_watch
from services.cli.edge import Edge, RequestRefused


class SlowEdge:
    """Answers with these status codes, one after the other; 200 is a job."""

    def __init__(self, *statuses: int) -> None:
        self.left = list(statuses)

    def get(self, model: type, path: str) -> Any:
        status = self.left.pop(0)
        if status != 200:
            raise RequestRefused(status, {"title": "no"})


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_watch, "_LOOK_SECONDS", 0.0)


def test_it_waits_until_the_orchestrator_has_read_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    edge = SlowEdge(404, 404, 200)
    job_watch.wait_until_read(cast(Edge, edge), "a")
    assert edge.left == []
    assert capsys.readouterr().err.count("waiting until the orchestrator has read it") == 1


def test_any_other_refusal_ends_it() -> None:
    with pytest.raises(RequestRefused):
        job_watch.wait_until_read(cast(Edge, SlowEdge(404, 503)), "a")
