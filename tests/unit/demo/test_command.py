"""The command's exit code and standard output mean the same to a program whatever the job came to."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas.base import EventData
from schemas.jobs import JobFailed, StepFault
from schemas.requests import JobRequest
from services.cli.demo import command
from services.cli.main import app
from services.cli.settings import CliSettings
from services.demo.base_model import demo_base_model
from services.demo.observed_job import ObservedJob
from services.demo.screen import DemoScreen
from services.demo.watch import Stranded
from services.devstack.state import StackState
from tests.unit.demo.fabricated import finished
from tests.unit.demo.test_observed_job import ACCEPTED, JOB, observed


class Environment:
    """A stack that is only claimed, and a job that ends as it is told to."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self.asked: list[JobRequest] = []
        self.ending: ObservedJob | BaseException = ObservedJob(JOB)
        self.stopped = False
        patch.chdir(folder)
        patch.setenv("NEUROWEAVER_CACHE", str(folder / "cache"))
        demo_base_model(folder / "cache").mkdir(parents=True)
        patch.setattr(command, "whole_stack", self.whole_stack)
        patch.setattr(command, "Outsider", self.outsider)
        patch.setattr(command, "watch", self.watch)
        patch.setattr(command, "_fetch", lambda _: lambda ref: Path(ref.uri))

    @contextmanager
    def whole_stack(self, settings: CliSettings) -> Iterator[StackState]:
        try:
            yield StackState(
                pid=os.getpid(), started_at=datetime.now(UTC), kafka_bootstrap="127.0.0.1:1", database_url="-", logs=Path()
            )
        finally:
            self.stopped = True

    def outsider(self, bootstrap: str, job_id: str) -> "Environment":
        return self

    async def __aenter__(self) -> "Environment":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def watch(self, bus: object, job: JobRequest, shown: DemoScreen, *, trouble: object) -> ObservedJob:
        self.asked.append(job)
        if isinstance(self.ending, BaseException):
            raise self.ending
        return self.ending


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Environment]:
    before = signal.getsignal(signal.SIGTERM)
    yield Environment(monkeypatch, tmp_path)
    signal.signal(signal.SIGTERM, before)


def run(*options: str) -> tuple[int, str, str]:
    answer = CliRunner().invoke(app, ["demo", *options])
    return answer.exit_code, answer.stdout, answer.stderr


def failed(*facts: EventData) -> Sequence[EventData]:
    fault = StepFault(cause="user", message="no such column", log_tail=("reading train.jsonl",))
    return (ACCEPTED, *facts, JobFailed(job_id=JOB, step="prepare", fault=fault))


def test_a_completed_job_prints_the_table_writes_the_reports_and_exits_0(around: Environment, tmp_path: Path) -> None:
    around.ending = finished("rlaif", tmp_path / "artifacts")
    code, shown, _ = run()
    assert code == 0
    assert "after RLAIF" in shown
    assert {path.name for path in (tmp_path / "var" / "demo").iterdir()} == {"report.html", "report.json"}
    (job,) = around.asked
    assert (job.pipeline, job.base_model) == ("rlaif", str(tmp_path / "cache" / "base-models" / "SmolLM2-135M-Instruct"))
    assert around.stopped


def test_with_json_standard_output_is_the_report_and_nothing_else(around: Environment, tmp_path: Path) -> None:
    around.ending = finished("sft", tmp_path / "artifacts")
    code, shown, remarks = run("--json", "--pipeline", "sft", "--folder", "here")
    assert code == 0
    assert json.loads(shown) == json.loads((tmp_path / "here" / "report.json").read_text())
    assert json.loads(shown)["peak_memory_bytes"] > 10_000_000
    assert "Publishing JobRequested" in remarks


def test_a_failed_job_says_why_leaves_no_report_stops_the_stack_and_exits_1(around: Environment, tmp_path: Path) -> None:
    around.ending = observed(*failed())
    code, shown, _ = run()
    assert code == 1
    assert "failed in step prepare; cause: user" in shown
    assert "reading train.jsonl" in shown
    assert not (tmp_path / "var").exists()
    assert around.stopped


def test_a_failed_job_prints_nothing_on_standard_output_with_json(around: Environment) -> None:
    around.ending = observed(*failed())
    code, shown, remarks = run("--json")
    assert (code, shown) == (1, "")
    assert "no such column" in remarks


def test_ctrl_c_exits_130_after_the_stack_was_stopped(around: Environment) -> None:
    around.ending = KeyboardInterrupt()
    code, _, remarks = run()
    assert code == 130
    assert "stopped" in remarks
    assert around.stopped


@pytest.mark.parametrize("missing", ["stack", "model"])
def test_what_is_missing_in_the_end_is_said_in_one_sentence(around: Environment, tmp_path: Path, missing: str) -> None:
    done = finished("sft", tmp_path / "artifacts")
    around.ending = Stranded("the stack ended") if missing == "stack" else replace(done, registered=None)
    code, _, remarks = run("--pipeline", "sft")
    assert code == 1
    assert ("the stack ended" if missing == "stack" else "ModelRegistered was not read") in " ".join(remarks.split())
    assert "Traceback" not in remarks
