"""The service on a real broker and database: a requested step becomes facts of the job; its process never imports torch."""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
from aiokafka import AIOKafkaProducer

from schemas.envelope import Event, encode
from schemas.jobs import FeedbackRecorded, StepCompleted, StepFailed, StepStarted
from schemas.topics import JOBS
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.publisher import make_producer
from services.chassis.serving.http import application
from services.feedback import app
from services.feedback.settings import FeedbackSettings
from tests.feedback import Step
from tests.integration.feedback.test_steps import BY_RULES, candidates
from tests.log import read_events
from tests.steps import an_event, request
from tests.toy import until


def settings(database_url: str, kafka: str, home: Path, name: str) -> FeedbackSettings:
    own = database_url.rpartition("/")[0] + f"/{name}"
    return FeedbackSettings(
        kafka_bootstrap=kafka, database_url=database_url, feedback_database_url=own, home=home, drain_seconds=5
    )


async def test_a_requested_label_step_becomes_facts_of_its_job(
    kafka: str, database_url: str, home: Path, unique: Callable[[str], str]
) -> None:
    job_id, step = unique("job"), Step(home)
    task = step.context("label", candidates(), BY_RULES).task
    asked = request(
        job_id,
        "label",
        kind="label",
        settings=task.settings,
        inputs=task.inputs,
        deadline=datetime.now(UTC) + timedelta(hours=1),
    )
    hopeless = request(
        job_id, "hopeless", kind="label", inputs=task.inputs, deadline=datetime.now(UTC) + timedelta(hours=1),
        settings=step.context("label", candidates(), {**BY_RULES, "margin": 3}).task.settings,
    )  # fmt: skip

    async def history() -> list[Event]:
        events = await read_events(kafka, JOBS.name)
        return [e for e in events if e.correlation_id == job_id and e.source == "neuroweaver/feedback"]

    async def ended() -> bool:
        return sum(isinstance(event.data, StepCompleted | StepFailed) for event in await history()) == 2

    service = app.build(settings(database_url, kafka, home, unique("feedback").replace("-", "_")))
    http = application([service])
    async with http.router.lifespan_context(http):
        producer: AIOKafkaProducer = make_producer(Cluster(kafka), "test")
        await producer.start()
        for data in (asked, hopeless):
            value, headers = encode(an_event(data, subject=job_id))
            await producer.send_and_wait(JOBS.name, value, job_id.encode(), headers=list(headers))
        await producer.stop()
        await until(ended, 60)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(http), base_url="http://test/api/v1") as client:
            shown = (await client.get(f"/feedback/{job_id}")).json()
            missing = await client.get("/feedback/no-such-job")

    by_step = {
        name: [event for event in await history() if event.subject == f"{job_id}/{name}/1"]
        for name in ("label", "hopeless")
    }
    assert [type(event.data) for event in by_step["label"]] == [StepStarted, FeedbackRecorded, StepCompleted]
    assert [event.sequence for event in by_step["label"]] == [1, 2, 3]
    fault = by_step["hopeless"][-1].data.fault  # type: ignore[attr-defined]
    assert (fault.cause, fault.reasons[0].field) == ("user", "feedback.margin")

    assert {(view["step"], view["status"]) for view in shown} == {("label", "completed"), ("hopeless", "failed")}
    (completed,) = [view for view in shown if view["step"] == "label"]
    assert completed["result"]["metrics"]["pairs"] == 2.0
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"


def test_neither_the_service_nor_a_child_without_a_local_judge_imports_torch() -> None:
    code = (
        "import sys, services.feedback.app, services.feedback.child, services.feedback.judges.choose; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
