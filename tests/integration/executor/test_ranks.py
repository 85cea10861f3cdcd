"""Processes that share a step end together, and the worker learns what the one that was lost died of."""

from pathlib import Path
from typing import Any

import psutil
import pytest

from schemas.recipes.sft import TrainingSettings
from schemas.steps import TrainSettings
from services.chassis.executor.folders import log_of
from services.chassis.executor.runner import Completed, Failed, Outcome, Work, WorkContext
from services.chassis.executor.supervise import SubprocessRunner
from services.chassis.settings import ServiceSettings
from tests.steps import request


async def outcome(home: Path, step: str, **settings: Any) -> Outcome:
    """Run a step of the test child with two processes."""
    asked = request(step=step, kind="train", settings=TrainSettings(base_model="base", training=TrainingSettings()))
    context = WorkContext(ServiceSettings(home=home, lease_seconds=600, **settings), "toy", lambda _: None)
    ended = await SubprocessRunner("tests.child", 2).run(Work(asked, "lease-1"), context)
    left = [
        other for other in psutil.process_iter(["environ"]) if str(home) in str((other.info["environ"] or {}).get("TMPDIR"))
    ]
    assert left == [], "no process is left behind"
    return ended


async def test_only_the_first_process_reports_the_result(tmp_path: Path) -> None:
    ended = await outcome(tmp_path, "shared")
    assert isinstance(ended, Completed)
    assert ended.result.metrics == {"rank": 0.0}


@pytest.mark.parametrize(
    ("step", "cause", "message"),
    [
        ("shared_lost", "infrastructure", "process 2 of 2: the process was killed by SIGKILL and left no result"),
        ("shared_memory", "memory", "process 2 of 2: MemoryFault: too large"),
    ],
)
async def test_the_fault_of_a_process_that_is_lost_is_the_fault_of_the_step(
    tmp_path: Path, step: str, cause: str, message: str
) -> None:
    ended = await outcome(tmp_path, step)
    assert isinstance(ended, Failed)
    assert (ended.fault.cause, ended.fault.message) == (cause, message)


async def test_a_step_without_progress_is_ended_and_its_log_says_where_each_of_its_processes_stands(tmp_path: Path) -> None:
    ended = await outcome(tmp_path, "shared_silent", hung_seconds=30.0)
    assert isinstance(ended, Failed)
    assert ended.fault.cause == "hung"
    assert "no progress for 30 s" in ended.fault.message
    log = log_of(tmp_path, "toy", "job-1", "shared_silent", 1).read_text()
    assert log.count("in shared_silent\n") == 2
