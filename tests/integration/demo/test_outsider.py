"""What the demo writes to a real Kafka is what any service of any language would, and what it reads is only of its job."""

import asyncio
import gc
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from schemas.base import EventData
from schemas.envelope import Event, encode
from schemas.ids import new_id
from schemas.jobs import JobAccepted, JobCompleted
from schemas.models import ModelPromoted
from schemas.requests import JobRequest
from schemas.steps import Policy
from schemas.topics import TOPIC_OF, aggregate_key
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel.log import UnknownTopic
from services.cli.topic_reader import records_of
from services.demo.outsider import Outsider
from services.demo.recipe import job_request


async def publish(kafka: str, data: EventData, correlation_id: str, *, event_id: str | None = None) -> None:
    event = Event(event_id or new_id(), "neuroweaver/test", "", datetime.now(UTC), data, 1, correlation_id, None, "")
    value, headers = encode(event)
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        await producer.send_and_wait(TOPIC_OF[event.type].name, value, aggregate_key(data).encode(), headers=headers)


async def until(outsider: Outsider, count: int) -> list[tuple[str, Event]]:
    found: list[tuple[str, Event]] = []
    for _ in range(40):
        found += await outsider.read(0.25)
        if len(found) >= count:
            break
    return found + await outsider.read(0.5)


async def test_the_request_lies_on_the_topic_as_a_binary_cloudevent(kafka: str, unique: Callable[[str], str]) -> None:
    job = job_request("rlaif", job_id=unique("demo"), base_model="/models/base")
    async with Outsider(Cluster(kafka), job.job_id) as outsider:
        await outsider.request(job)
        await outsider.cancel("no longer wanted")
    request, cancel = await records_of(Cluster(kafka), "neuroweaver.requests", key=job.job_id)
    headers = {name: value.decode() for name, value in request.headers}
    assert headers["ce_specversion"] == "1.0"
    assert headers["ce_type"] == "neuroweaver.JobRequested"
    assert headers["ce_source"] == "relaycore/demo"
    assert headers["ce_correlationid"] == job.job_id
    assert headers["content-type"] == "application/json"
    assert "ce_sequence" not in headers
    assert JobRequest.model_validate_json(request.value) == job
    assert dict(cancel.headers)["ce_type"] == b"neuroweaver.JobCancelRequested"


async def test_it_reads_what_comes_after_its_start_about_its_job_each_once(
    kafka: str, unique: Callable[[str], str]
) -> None:
    job = job_request("sft", job_id=unique("demo"), base_model="base")
    other = unique("other")
    await publish(kafka, JobCompleted(job_id=job.job_id, model=None, version=None), job.job_id)
    async with Outsider(Cluster(kafka), job.job_id) as outsider:
        await outsider.request(job)
        await publish(
            kafka, JobAccepted(job_id=job.job_id, request=job, plan=(), policy=Policy()), job.job_id, event_id=unique("id")
        )
        twice = unique("id")
        for _ in range(2):
            await publish(kafka, JobCompleted(job_id=job.job_id, model="m", version="1.0.0"), job.job_id, event_id=twice)
        await publish(kafka, JobCompleted(job_id=other, model="m", version="1.0.0"), other)
        await publish(kafka, ModelPromoted(model="m", alias="candidate", version="1.0.0", previous=None), job.job_id)
        async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
            await producer.send_and_wait("neuroweaver.jobs", b"garbage", job.job_id.encode())
        found = await until(outsider, 4)
    assert sorted((topic, event.type) for topic, event in found) == [
        ("neuroweaver.jobs", "JobAccepted.v2"),
        ("neuroweaver.jobs", "JobCompleted"),
        ("neuroweaver.models", "ModelPromoted"),
        ("neuroweaver.requests", "JobRequested"),
    ]


async def test_a_topic_can_be_read_by_key_and_from_its_end(kafka: str, unique: Callable[[str], str]) -> None:
    one, other = unique("job"), unique("job")
    for version in ("1.0.0", "2.0.0", "3.0.0"):
        await publish(kafka, JobCompleted(job_id=one, model="m", version=version), one)
        await publish(kafka, JobCompleted(job_id=other, model="m", version=version), other)
    records = await records_of(Cluster(kafka), "neuroweaver.jobs", key=one, limit=2)
    assert [b'"2.0.0"' in records[0].value, b'"3.0.0"' in records[1].value] == [True, True]
    assert {record.key for record in records} == {one.encode()}
    assert await records_of(Cluster(kafka), "neuroweaver.jobs", key=one, limit=0) == []
    assert await records_of(Cluster(kafka), "neuroweaver.jobs", key=unique("nobody")) == []


async def test_a_topic_that_does_not_exist_is_said_with_those_that_do(kafka: str) -> None:
    with pytest.raises(UnknownTopic, match=r"no topic 'neuroweaver.job'.*neuroweaver.jobs"):
        await records_of(Cluster(kafka), "neuroweaver.job")


async def test_who_cannot_reach_kafka_leaves_nothing_open() -> None:
    left: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: left.append(context["message"]))
    with pytest.raises(KafkaConnectionError):
        async with Outsider(Cluster("127.0.0.1:1"), "nobody"):
            pass
    gc.collect()
    assert left == []
