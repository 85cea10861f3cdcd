"""What a handler's context does with its reports."""

from pathlib import Path

import pytest

from schemas.progress import StepProgressed
from schemas.steps import EvaluateSettings
from services.chassis.executor.child import Context
from services.chassis.executor.messages import ChildTask, ProgressMessage


class Reports:
    """Stands where the pipe is."""

    def __init__(self) -> None:
        self.sent: list[StepProgressed] = []

    def send(self, message: ProgressMessage) -> None:
        self.sent.append(message.progress)


class Clock:
    """Stands where `time.monotonic` is."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock.monotonic)
    return clock


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def context(reports: Reports) -> Context:
    return Context(a_task(), reports)  # type: ignore[arg-type]


def a_task(lease: str = "lease-1") -> ChildTask:
    return ChildTask(
        job_id="job-1", step="evaluate", attempt=2, kind="evaluate", settings=EvaluateSettings(base_model="base"),
        inputs={}, results={}, memory_failures=0, artifacts="/artifacts", checkpoints=Path("/c"), lease=lease, cache=Path("/x"),
    )  # fmt: skip


def test_at_most_one_report_a_second_is_sent_however_often_it_is_called(
    context: Context, reports: Reports, clock: Clock
) -> None:
    for number in range(101):
        context.progress(number, 1000)
        clock.now += 0.0625
    assert [report.done for report in reports.sent] == [0, 16, 32, 48, 64, 80, 96]


def test_the_remaining_time_follows_from_the_pace_since_this_run_began(
    context: Context, reports: Reports, clock: Clock
) -> None:
    context.progress(50, 110)  # resumed at 50
    clock.now += 10
    context.progress(60, 110)
    assert [report.eta_seconds for report in reports.sent] == [None, 50.0]


def test_another_phase_has_a_pace_of_its_own(context: Context, reports: Reports, clock: Clock) -> None:
    context.progress(0, 10, "rows")
    clock.now += 2
    context.progress(10, 10, "rows")
    clock.now += 2
    context.progress(0, 10, "prompts")
    clock.now += 4
    context.progress(2, 10, "prompts")
    assert [report.eta_seconds for report in reports.sent] == [None, 0.0, None, 16.0]


def test_a_run_writes_checkpoints_where_no_other_run_does() -> None:
    assert a_task().own_checkpoints == Path("/c/2/lease-1")
    assert a_task("../x").own_checkpoints.parent == Path("/c/2")


def test_a_context_stops_when_it_is_told(context: Context) -> None:
    assert not context.stopping
    context.stop()
    assert context.stopping
