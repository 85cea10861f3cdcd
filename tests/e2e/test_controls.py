"""What somebody may ask of a running training, by event, over HTTP and with the command line, and what its worker does at SIGTERM."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from schemas.jobs import StepCancelled, StepCompleted, StepFailed, StepRequested
from schemas.requests import JobCancelRequested
from services.chassis.kernel import store
from services.chassis.settings import ServiceSettings
from tests.e2e.system import System, wait_for
from tests.e2e.trainings import PIPELINE, checkpoints, training
from tests.toy import until

ROUTES = ("event", "http", "command")
ENDLESS = 100_000
"""Steps of a training that a test ends."""


@pytest.fixture(scope="module")
def endless(system: System) -> str:
    """Return a job whose training has done some steps, and writes no checkpoint unless it is asked for one."""
    settings = training(ENDLESS) | {"checkpoint_steps": ENDLESS}
    job_id = system.start_job(pipeline=PIPELINE, training=settings)
    wait_for(lambda: bool(done(system, job_id)), lambda: told(system, job_id))
    return job_id


def done(system: System, job_id: str) -> int:
    """Return the steps of the training that the job's progress tells."""
    steps = system.services["orchestrator"].get(f"/training/{job_id}/progress")["steps"]
    return next(step["done"] or 0 for step in steps if step["step"] == "train")


def steps_saved(system: System, job_id: str) -> int:
    """Return the steps of the newest checkpoint."""
    return max(int(path.parent.name.removeprefix("step-")) for path in checkpoints(system, job_id))


def told(system: System, job_id: str) -> str:
    return json.dumps(system.job(job_id), indent=1)


def attempts(system: System, job_id: str) -> dict[str, list[dict[str, Any]]]:
    return {step["name"]: step["attempts"] for step in system.job(job_id)["steps"]}


def log(system: System, job_id: str, attempt: int) -> str:
    path = system.home / "logs" / "trainer" / job_id / "train" / f"{attempt}.log"
    return path.read_text() if path.exists() else ""


def goes_on(system: System, job_id: str, attempt: int) -> bool:
    return "continuing from checkpoint" in log(system, job_id, attempt)


@pytest.mark.parametrize("route", ROUTES)
async def test_a_running_training_writes_a_checkpoint_when_it_is_asked_to_and_goes_on(
    system: System, endless: str, route: str
) -> None:
    before = checkpoints(system, endless)
    await system.control(route, endless, "checkpoint")
    wait_for(lambda: bool(checkpoints(system, endless) - before), lambda: log(system, endless, 1))
    newest = steps_saved(system, endless)
    wait_for(lambda: done(system, endless) > newest, lambda: told(system, endless))
    assert [len(tried) for tried in attempts(system, endless).values()] == [1, 1]


async def test_when_the_databases_clock_jumps_the_attempt_has_one_process_again_soon_which_goes_on(
    system: System, endless: str
) -> None:
    """Every lease seems to have expired, so that a second process begins while the first one runs."""
    (before,) = attempts(system, endless)["train"]
    engine = store.connect(ServiceSettings(database_url=system.stack.database_url).database_url_for("trainer"))

    async def taken_over() -> bool:
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE work SET leased_until = clock_timestamp() WHERE lease IS NOT NULL"))
        return bool(attempts(system, endless)["train"][0]["starts"] > before["starts"])

    await until(taken_over, what=lambda: told(system, endless))
    await engine.dispose()
    wait_for(lambda: "continuing from checkpoint" in log(system, endless, 1), lambda: told(system, endless))
    wait_for(lambda: len(system.services["trainer"].children()) == 1, lambda: "two processes go on")
    newest = steps_saved(system, endless)
    wait_for(lambda: done(system, endless) > newest, lambda: told(system, endless))
    (after,) = attempts(system, endless)["train"]
    assert after["outcome"] is None


async def test_a_trainer_that_gets_sigterm_writes_a_checkpoint_and_the_next_one_goes_on_from_it(
    system: System, endless: str
) -> None:
    """Meanwhile jobs wait, and a changed priority changes their order."""
    before, trainer = checkpoints(system, endless), system.services["trainer"]
    assert trainer.stop() == 0
    (tried,) = attempts(system, endless)["train"]
    written = max(checkpoints(system, endless), key=lambda path: path.parent.name)
    assert written not in before or tried["starts"] > 1, "a machine under load may have lost the lease just before"
    try:
        waiting = [system.start_job(pipeline=PIPELINE) for _ in ROUTES]
        wait_for(lambda: order(system) == waiting, lambda: str(order(system)))
        for number, (route, job_id) in enumerate(zip(ROUTES, waiting, strict=True), 1):
            await system.control(route, job_id, "priority", number)
        wait_for(lambda: order(system) == waiting[::-1], lambda: str(order(system)))
        for job_id in waiting:
            await system.send(JobCancelRequested(job_id=job_id, requester="relaycore"))
    finally:
        trainer.start()
    trainer.wait_ready()
    wait_for(
        lambda: f"continuing from checkpoint {written.parent}" in log(system, endless, 1), lambda: told(system, endless)
    )
    (tried,) = attempts(system, endless)["train"]
    assert tried["fault"] is None, "it is the same attempt, and nothing failed"
    for job_id in waiting:
        system.wait_job(job_id, "cancelled")


def order(system: System) -> list[str]:
    """Return the jobs that wait for the trainer, the next one first."""
    return [one["job_id"] for one in system.services["orchestrator"].get("/queue")["waiting"]]


async def test_a_running_training_is_cancelled_by_an_event(system: System, endless: str) -> None:
    await system.send(JobCancelRequested(job_id=endless, requester="relaycore", reason="changed my mind"))
    job = system.wait_job(endless, "cancelled")
    assert job["cancel"]["reason"] == "changed my mind"
    wait_for(lambda: not system.services["trainer"].children(), lambda: "a child runs on")


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """Take a folder away during the block."""
    aside = folder.rename(folder.with_name(f"{folder.name}.aside"))
    try:
        yield
    finally:
        aside.rename(folder)


CYCLES = (("event", "event", "command"), ("command", "command", "event"))
"""By which routes a job is paused, resumed and retried, after it was paused and resumed over HTTP."""


async def paused(system: System, job_id: str, route: str) -> None:
    await system.control(route, job_id, "pause")
    wait_for(lambda: system.job(job_id)["status"] == "paused", lambda: told(system, job_id))
    wait_for(lambda: not system.services["trainer"].children(), lambda: "a child runs on")
    assert order(system) == []


async def test_a_job_is_paused_resumed_and_after_a_failure_retried_and_keeps_what_it_has(system: System) -> None:
    """It goes on from its checkpoint when it is resumed. Then it fails because its data set is away, and completes when that is back:
    prepared once, trained from its checkpoint."""
    request = system.request(pipeline=PIPELINE, training=training(600))
    await system.publish(request)
    job_id = request["job_id"]
    wait_for(lambda: bool(checkpoints(system, job_id)), lambda: told(system, job_id))
    dataset = next(step["outputs"]["dataset"] for step in system.job(job_id)["steps"] if step["name"] == "prepare")
    await paused(system, job_id, "http")
    await system.control("http", job_id, "resume")
    wait_for(lambda: goes_on(system, job_id, 2), lambda: told(system, job_id))
    for pause, resume, retry in CYCLES:
        await paused(system, job_id, pause)
        with away(Path(dataset["uri"])):
            await system.control(resume, job_id, "resume")
            failure = system.wait_job(job_id, "failed")["failure"]
        assert "retry the job" in failure["fault"]["reasons"][0]["remedy"]
        again = httpx2.post(system.url("orchestrator", "/training/start"), json=request, timeout=60)
        assert (again.status_code, again.json()["status"]) == (202, "failed")
        assert f"{job_id}/retry" in again.json()["failure"]["remedy"]
        await system.control(retry, job_id, "retry")
        wait_for(lambda: system.job(job_id)["status"] == "running", lambda: told(system, job_id))
    system.wait_job(job_id)
    history = [event.data for event in await system.history(job_id)]
    asked = [data for data in history if isinstance(data, StepRequested) and data.step == "train"]
    assert {data.inputs["dataset"].sha256 for data in asked} == {dataset["sha256"]}
    ends = [
        type(data)
        for data in history
        if isinstance(data, StepCancelled | StepFailed | StepCompleted) and data.step == "train"
    ]
    assert ends == [StepCancelled, *[StepCancelled, StepFailed] * len(CYCLES), StepCompleted], "a pause is no failure"
    assert len(attempts(system, job_id)["prepare"]) == 1
    assert goes_on(system, job_id, len(asked))
