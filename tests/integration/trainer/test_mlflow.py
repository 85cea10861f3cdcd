"""Steps can be followed in MLflow, and no tracking server changes what becomes of them. Real client, real store, real processes."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.recipes.optimiser import OptimiserSettings
from schemas.recipes.sft import TrainingSettings
from schemas.steps import TrainSettings
from services.chassis.executor.runner import Completed, Outcome, Work, WorkContext
from services.chassis.executor.supervise import SubprocessRunner
from services.chassis.settings import ServiceSettings
from services.trainer.tracking import tracker as tracking
from services.trainer.tracking.messages import Begun, Ended, Measured, Where
from services.trainer.tracking.metrics import DROPPED
from services.trainer.tracking.runs import Runs
from services.trainer.tracking.tracked import Tracked
from services.trainer.tracking.tracker import Tracker
from tests.steps import request
from tests.toy import until

pytest.importorskip("mlflow", reason="the extra mlflow is not installed")

PASSWORD = "correct-horse-battery"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database that has its tables: this process and the recorder would otherwise both create them."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    MlflowClient(uri).search_experiments()
    return uri


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://operator:{PASSWORD}@127.0.0.1:{listening.getsockname()[1]}"


@asynccontextmanager
async def recording(uri: str) -> AsyncIterator[Tracker]:
    tracker, stop = Tracker(uri, "tests", 5.0), asyncio.Event()
    running = asyncio.create_task(tracker.run(stop))
    await until(lambda: tracker._process is not None)
    try:
        yield tracker
    finally:
        stop.set()
        await running


async def attempt(tracker: Tracker, home: Path, job: str, behaviour: str, number: int = 1) -> Outcome:
    """Do an attempt at the step `behaviour` of the test child."""
    optimiser = OptimiserSettings(learning_rate=0.1)
    settings = TrainSettings(base_model="router@1.0.0", training=TrainingSettings(optimiser=optimiser))
    before = {"resolve": StepResult(facts={"started_from": "router@1.0.0"})}
    inputs = {"dataset": ArtifactRef(uri="/d", sha256="e" * 64, size=1)}
    asked = request(job, behaviour, number, kind="train", settings=settings, results=before, inputs=inputs, requester="ann")
    context = WorkContext(ServiceSettings(home=home, lease_seconds=600), "toy", lambda data: None)
    return await Tracked(SubprocessRunner("tests.child"), tracker).run(Work(asked, f"lease-{number}"), context)


def runs_of(store: str, job: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("tests")
    return (
        list(client.search_runs([experiment.experiment_id], f"tags.`neuroweaver.job_id` = '{job}'")) if experiment else []
    )


def history(store: str, run: Any, metric: str) -> list[tuple[int, float]]:
    from mlflow import MlflowClient

    return [(point.step, point.value) for point in MlflowClient(store).get_metric_history(run.info.run_id, metric)]


async def test_a_step_is_a_run_with_its_settings_its_course_and_its_result(store: str, tmp_path: Path) -> None:
    async with recording(store) as tracker:
        assert isinstance(await attempt(tracker, tmp_path, "whole", "measuring"), Completed)
        await until(lambda: [run.info.status for run in runs_of(store, "whole")] == ["FINISHED"])
    (run,) = runs_of(store, "whole")
    assert run.info.run_name == "whole/measuring"
    assert history(store, run, "loss") == [(1, 1), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)]
    assert [step for step, _ in history(store, run, "entropy")] == [1, 2, 3]
    assert run.data.metrics["memory_bytes"] > 2**20
    assert run.data.metrics["result.loss"] == 0.25
    assert (run.data.params["base_model"], run.data.params["training.optimiser.learning_rate"]) == ("router@1.0.0", "0.1")
    tags = {name.removeprefix("neuroweaver."): value for name, value in run.data.tags.items()}
    assert (tags["job_id"], tags["step"], tags["requester"]) == ("whole", "measuring", "ann")
    assert (tags["started_from"], tags["recipe_sha256"], tags["input.dataset_sha256"]) == (
        "router@1.0.0",
        "d" * 64,
        "e" * 64,
    )


async def test_a_later_attempt_continues_the_run_also_through_another_recorder(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_RESTART_SECONDS", 0.01)
    async with recording(store) as tracker:
        await attempt(tracker, tmp_path, "again", "crash")
        await until(lambda: [run.info.status for run in runs_of(store, "again")] == ["FAILED"])
        (failed,) = runs_of(store, "again")
        assert failed.data.tags["neuroweaver.fault.cause"] == "infrastructure"
        first = tracker._process
        assert first is not None
        first.kill()
        await until(lambda: tracker._process not in (None, first))
        asked = Begun(run="again/crash", at=1, params={}, tags={"neuroweaver.attempt": "2"})
        for message in (asked, Measured(run=asked.run, at=2, step=1, values={"loss": 1.0})):
            tracker.tell(message)
        tracker.tell(Ended(run=asked.run, at=3, status="FINISHED"))
        await until(lambda: [run.info.status for run in runs_of(store, "again")] == ["FINISHED"])
    (run,) = runs_of(store, "again")
    assert (run.info.run_id, run.data.tags["neuroweaver.attempt"]) == (failed.info.run_id, "2")
    assert history(store, run, "loss") == [(1, 1.0)]


async def test_a_server_that_never_answers_delays_no_step_and_its_password_is_in_no_log(
    silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(tracking._log, "warning", lambda event, **fields: told.append(fields))
    async with recording(silent) as tracker:
        for number in range(3):
            assert isinstance(await attempt(tracker, tmp_path, f"job-{number}", "measuring"), Completed)
        await until(lambda: told)
    assert len(told) == 1
    assert "timed out" in told[0]["error"]
    assert PASSWORD not in str(told)


async def test_measurements_that_nobody_reads_are_counted_and_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for level in ("warning", "info"):
        monkeypatch.setattr(tracking._log, level, lambda event, **fields: said.append(event))
    tracker = Tracker("sqlite:///unused", "tests", 5.0)
    before = DROPPED.labels("trainer")._value.get()
    for step in range(5):
        tracker.tell(Measured(run="job/train", at=1, step=step, values={"loss": 1.0}))
    assert DROPPED.labels("trainer")._value.get() - before == 5
    assert len(said) == 1


def told(run: str, *, name: str = "loss", count: int = 1) -> list[Any]:
    points = [Measured(run=run, at=step, step=step, values={name: float(step)}) for step in range(count)]
    return [Begun(run=run, at=0, params={}, tags={"neuroweaver.job_id": run}), *points]


def test_measurements_wait_while_the_server_is_away_and_the_oldest_give_way(
    monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr("services.trainer.tracking.runs._WAITING", 3)
    runs = Runs(Where(uri="http://127.0.0.1:1", experiment="tests"))
    for message in told("away", count=5):
        runs.take(message)
    assert "127.0.0.1" in (runs.write() or "")
    assert runs.counted() == 2
    runs._where, runs._client = Where(uri=store, experiment="tests"), None  # it is back
    runs.take(Ended(run="away", at=9, status="FINISHED"))
    assert runs.write() is None
    (run,) = runs_of(store, "away")
    assert (run.info.status, [step for step, _ in history(store, run, "loss")]) == ("FINISHED", [2, 3, 4])


def test_what_the_server_refuses_is_dropped_and_counted_and_the_other_runs_are_written(store: str) -> None:
    runs = Runs(Where(uri=store, experiment="tests"))
    for message in [*told("bad", name="not;a;name"), *told("good"), Ended(run="good", at=9, status="FINISHED")]:
        runs.take(message)
    assert "not;a;name" in (runs.write() or "")
    assert runs.counted() == 1
    assert [run.info.status for run in runs_of(store, "good")] == ["FINISHED"]
    assert runs.write() is None
