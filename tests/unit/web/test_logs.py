"""Over HTTP a log is read in parts, and a log that is not on this machine is refused in words."""

from pathlib import Path

from fastapi import FastAPI

from services.chassis.executor.folders import log_of
from services.chassis.serving.api.logs import log_router
from services.chassis.serving.http import API
from tests.unit.web.asking import ask, problem


async def test_a_log_is_read_in_parts(tmp_path: Path) -> None:
    app = FastAPI()
    app.include_router(log_router(tmp_path, "trainer"), prefix=API)
    log = log_of(tmp_path, "trainer", "job 1", "train", 2)
    log.parent.mkdir(parents=True)
    log.write_text("one\ntwo\n")
    first = await ask("GET", "/logs/trainer/job%201/train/2", app=app)
    assert first.json() == {"service": "trainer", "lines": ["one", "two"], "next": 8}
    log.write_text("one\ntwo\nthree\n")
    assert (await ask("GET", "/logs/trainer/job%201/train/2?after=8", app=app)).json()["lines"] == ["three"]


async def test_a_log_that_is_not_here_is_refused_in_words() -> None:
    for service in ("trainer", "feedback"):
        refused = problem(await ask("GET", f"/logs/{service}/job/train/1"), 404)
        assert "was not started on this machine, or its log was removed" in refused["detail"]


async def test_no_path_leads_out_of_the_folder_of_logs() -> None:
    assert (await ask("GET", "/logs/trainer/%2e%2e/%2e%2e/1")).status_code in (404, 422)
    problem(await ask("GET", "/logs/trainer/job/train/0"), 422)
    problem(await ask("GET", "/logs/trainer/..%2F..%2Fetc/passwd/1"), 404)
