"""An attempt that fails leaves a report that says why and what to do, however its process ended."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from schemas.jobs import StepFault, StepResult
from schemas.progress import StepProgressed
from schemas.reasons import Reason
from services.chassis.executor.folders import checkpoints_of, log_of
from services.chassis.executor.runner import Completed, Failed, Outcome, Work, WorkContext
from services.chassis.executor.supervise import SubprocessRunner
from services.chassis.reports.failed import ReportsFailures
from services.chassis.reports.failure_report import failure_report
from services.chassis.reports.sections import Resources
from services.chassis.settings import ServiceSettings
from tests.page_reader import PageReader
from tests.steps import START, request

HOSTILE = "</pre><script>alert('&')</script><img src=x onerror=alert(1)>"
USED = Resources(75.0, 2_000_000_000, [(1.0, 1.1), (2.0, 1.2)], [])


def progressed(done: int = 8) -> StepProgressed:
    return StepProgressed(
        job_id="job-1", step="evaluate", attempt=1, kind="evaluate", done=done, of=20, memory_bytes=10**9, losses=(3.0, 2.0)
    )


async def run(home: Path, step: str, act: str | None = None) -> Outcome:
    """Run a step of the test child; `act`: kill it once its progress has arrived."""
    progress: list[StepProgressed] = []
    context = WorkContext(ServiceSettings(home=home, lease_seconds=600), "toy", progress.append)
    running = asyncio.create_task(
        ReportsFailures(SubprocessRunner("tests.child")).run(Work(request(step=step), "l"), context)
    )
    if act == "kill":
        file = checkpoints_of(home, "job-1", step) / "1" / "l" / "pid"
        while not progress:
            await asyncio.sleep(0.02)
        os.kill(int(file.read_text()), signal.SIGKILL)
    return await running


def page_of(outcome: Outcome) -> PageReader:
    assert isinstance(outcome, Failed)
    assert outcome.fault.report is not None
    return PageReader((Path(outcome.fault.report.uri) / "report.html").read_text())


def test_the_report_says_what_went_wrong_what_to_do_and_how_far_the_attempt_was() -> None:
    reason = Reason(field="training.max_length", value="9", message="too small", remedy="set 64")
    fault = StepFault(cause="user", message="rows are wrong", reasons=(reason,), log_tail=("first", "second"))
    earlier = {"prepare": StepResult(facts={"rows_left_out": "3 rows"})}
    page = PageReader(failure_report(request(attempt=2, results=earlier), fault, progressed(), USED, START))
    assert page.open == []
    for said in (
        "evaluate failed", "Attempt 2 ran for 1 min 15 s and used at least 2.00 GB of memory. It failed after 8 of 20 steps.",
        "rows are wrong", "training.max_length", "set 64", "prepare: 3 rows", "first\nsecond", "Training loss", "base_model",
    ):  # fmt: skip
        assert said in page.said, said
    assert "from 3 to 2 in 6 steps." in str(page.attributes)


def test_no_text_of_others_acts() -> None:
    reason = Reason(field=HOSTILE, value=HOSTILE, message=HOSTILE, remedy=HOSTILE)
    fault = StepFault(cause=HOSTILE, message=HOSTILE, reasons=(reason,), log_tail=(HOSTILE,))
    earlier = {"prepare": StepResult(facts={"dataset_notes": HOSTILE})}
    page = PageReader(failure_report(request(results=earlier), fault, None, Resources(0.0, 0, [], []), START))
    assert page.open == []
    assert not {"script", "img"} & set(page.tags)


async def test_a_step_that_is_refused_or_crashes_leaves_a_report(tmp_path: Path) -> None:
    assert "the request or its data" in page_of(await run(tmp_path, "user")).said
    crashed = page_of(await run(tmp_path, "crash")).said
    assert "End of its log" in crashed
    assert "Traceback" in crashed


async def test_a_step_whose_process_is_killed_leaves_a_report(tmp_path: Path) -> None:
    said = page_of(await run(tmp_path, "checkpointing", "kill")).said
    assert "SIGKILL" in said
    assert "of 1000 steps" in said


async def test_a_completed_step_gets_no_second_report(tmp_path: Path) -> None:
    outcome = await run(tmp_path, "complete")
    assert isinstance(outcome, Completed)
    assert not (tmp_path / "artifacts").exists()


async def test_a_report_that_cannot_be_stored_changes_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("services.chassis.reports.failed.ArtifactStore", full)
    outcome = await run(tmp_path, "user")
    assert isinstance(outcome, Failed)
    assert (outcome.fault.cause, outcome.fault.report) == ("user", None)
    log = log_of(tmp_path, "toy", "job-1", "user", 1).read_text()
    assert log.splitlines()[-1] == "the report of this failed attempt could not be stored (OSError)"
