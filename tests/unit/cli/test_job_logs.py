"""Whatever a step's process wrote can be read while it runs, after it completed and after it failed."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from schemas.jobs import StepFault
from services.chassis.serving.api.logs import LogPart
from services.cli.edge import Edge, RequestRefused
from services.cli.job_logs import AttemptLog, JobLogs
from services.cli.log_screen import LogScreen
from services.orchestrator.queries import JobRow
from services.orchestrator.rendering import job_view
from services.orchestrator.views import JobView
from tests.unit.orchestrator.scenario import JobScenario


class Services(Edge):
    """Services whose logs are texts in memory."""

    def __init__(self, scenario: JobScenario) -> None:
        self.scenario = scenario
        self.logs: dict[str, list[str]] = {}
        """Lines by path; a position is a number of lines."""

    def get(self, view: Any, path: str, **query: Any) -> Any:
        if view is JobView:
            return self.job()
        if path not in self.logs:
            raise RequestRefused(404, {"title": "Not found"})
        lines = self.logs[path]
        return LogPart(service="trainer", lines=tuple(lines[query["after"] or 0 :]), next=len(lines))

    def job(self) -> JobView:
        return job_view(JobRow(self.scenario.job_id, self.scenario.state, 1, datetime(2030, 1, 1, tzinfo=UTC)))


@pytest.fixture
def services() -> Services:
    scenario = JobScenario()
    scenario.requested()
    return Services(scenario)


def read(services: Services, step: str | None = None, last: int = 50) -> list[tuple[str, int, str, tuple[str, ...]]]:
    found = JobLogs(services, services.scenario.job_id, step, last).news(services.job())
    return [(log.step, log.attempt, log.status, log.lines) for log in found]


def test_running_completed_and_failed_attempts_have_their_lines(services: Services) -> None:
    services.logs["/logs/trainer/job-1/prepare/1"] = ["disk away"]
    services.logs["/logs/trainer/job-1/prepare/2"] = ["read 9 rows"]
    services.logs["/logs/trainer/job-1/train/1"] = ["step 1", "step 2", "step 3"]
    services.scenario.started("prepare")
    services.scenario.failed("prepare", 1)
    services.scenario.started("prepare", 2)
    services.scenario.completed("prepare", 2)
    services.scenario.started("train")
    assert read(services) == [
        ("prepare", 1, "failed", ("disk away",)),
        ("prepare", 2, "completed", ("read 9 rows",)),
        ("train", 1, "running", ("step 1", "step 2", "step 3")),
    ]
    assert read(services, step="train", last=2) == [("train", 1, "running", ("step 2", "step 3"))]


def test_of_a_failed_attempt_whose_log_is_elsewhere_the_recorded_lines_are_shown(services: Services) -> None:
    services.scenario.started("prepare")
    services.scenario.failed("prepare", 1)
    (log,) = JobLogs(services, "job-1", None, 50).news(services.job())
    assert log.fault is not None
    assert log.lines == log.fault.log_tail
    assert (log.missing is None) == bool(log.lines)


def test_a_log_that_nobody_here_has_is_said_once(services: Services) -> None:
    services.scenario.started("prepare")
    logs = JobLogs(services, "job-1", None, 50)
    (log,) = logs.news(services.job())
    assert "cannot be read at this address" in (log.missing or "")
    assert list(logs.news(services.job())) == []


def test_a_completed_attempt_without_a_report_says_why(services: Services, capsys: pytest.CaptureFixture[str]) -> None:
    services.logs["/logs/trainer/job-1/prepare/1"] = ["read 9 rows"]
    services.scenario.started("prepare")
    services.scenario.completed("prepare", facts={"report": "it could not be made (OSError)"})
    (log,) = JobLogs(services, "job-1", "prepare", 50).news(services.job())
    assert log.no_report == "it could not be made (OSError)"
    title, _ = shown(capsys, log).splitlines()
    assert title == "prepare, attempt 1: completed; its report: it could not be made (OSError)"


def test_new_lines_are_followed_until_the_step_has_ended(services: Services) -> None:
    path = "/logs/trainer/job-1/prepare/1"
    services.logs[path] = ["one"]
    services.scenario.started("prepare")

    def end() -> None:
        services.logs[path].append("four")
        services.scenario.completed("prepare")

    meanwhile: list[Callable[[], object]] = [
        lambda: services.logs[path].extend(["two", "three"]),
        lambda: None,
        end,
    ]
    logs = JobLogs(services, "job-1", "prepare", 50).follow(services.job(), wait=lambda _: meanwhile.pop(0)())
    assert [(log.status, log.lines) for log in logs] == [
        ("running", ("one",)), ("running", ("two", "three")), ("completed", ("four",)),
    ]  # fmt: skip
    assert meanwhile == []


def shown(capsys: pytest.CaptureFixture[str], *logs: AttemptLog, **how: bool) -> str:
    scenario = JobScenario()
    scenario.requested()
    screen = LogScreen(Services(scenario).job(), json=how.get("json", False), each=how.get("each", False))
    for log in logs:
        screen.show(log)
    screen.end()
    return capsys.readouterr().out


RUNS = AttemptLog("train", 1, "running", ("step 1",))
GOES_ON = AttemptLog("train", 1, "running", ("step 2\x1b[2J",))
FAILS = AttemptLog("train", 1, "failed", ("boom",), StepFault(cause="memory", message="it is full"))


def test_an_attempt_has_one_title_however_often_it_writes(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, RUNS, GOES_ON, FAILS, AttemptLog("sample", 1, "running", (), missing="it is elsewhere"))
    assert text.splitlines() == [
        "train, attempt 1: running", "  step 1", "  step 2\\x1b[2J", "train, attempt 1: memory: it is full", "  boom",
        "sample, attempt 1: running", "  (it is elsewhere)",
    ]  # fmt: skip


def test_programs_get_a_list_of_attempts_or_a_line_for_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    (entry,) = json.loads(shown(capsys, RUNS, GOES_ON, json=True))
    assert (entry["step"], entry["attempt"], entry["status"], entry["log_tail"]) == (
        "train", 1, "running", ["step 1", "step 2\x1b[2J"],
    )  # fmt: skip
    lines = shown(capsys, RUNS, GOES_ON, json=True, each=True).splitlines()
    assert [json.loads(line)["line"] for line in lines] == ["step 1", "step 2\x1b[2J"]


def test_a_job_whose_steps_wait_has_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys) == "No attempt of job job-1 has been started; it is running.\n"
