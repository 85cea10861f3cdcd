"""How long a product waits: from JobRequested on Kafka to StepRequested on Kafka, through the real orchestrator."""

import asyncio
import time
from collections.abc import Callable
from statistics import median
from uuid import uuid4

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord
from sqlalchemy.engine import make_url

from benchmarks.full_loop import Servers, process
from benchmarks.load import create_topics
from schemas.attributes import PREFIX
from schemas.envelope import encode
from schemas.generate.examples import REQUEST
from schemas.jobs import StepRequested
from schemas.requests import JobRequested
from schemas.topics import JOBS, REQUESTS
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.publisher import make_producer, outside_event
from services.chassis.migrations.provision import create_database
from services.chassis.settings import ServiceSettings

RATES = (50, 200)
_WARM_UP_JOBS = 100
_PATIENCE_SECONDS = 60

Percentiles = dict[str, float]


def _is_step_requested(record: ConsumerRecord) -> bool:
    return ("ce_type", f"{PREFIX}{StepRequested.type_name()}".encode()) in record.headers


def _is_anything(_record: ConsumerRecord) -> bool:
    return True


async def run_orchestrator(servers: Servers, rate: int, seconds: float) -> Percentiles:
    """Run the real service."""
    async with process("orchestrator", servers.bootstrap, servers.database_url):
        return await _measure(servers, REQUESTS.name, JOBS.name, _is_step_requested, rate, seconds)


async def run_bare(servers: Servers, rate: int, seconds: float) -> Percentiles:
    """Run the bare loop."""
    name = f"bare_{uuid4().hex[:8]}"
    topic, answers = f"bench.{name}.requests", f"bench.{name}.answers"
    await create_topics(servers.bootstrap, topic, answers)
    await create_database(ServiceSettings(database_url=servers.database_url), name)
    url = make_url(servers.database_url).set(drivername="postgresql", database=f"neuroweaver_{name}")
    async with process("bare", servers.bootstrap, url.render_as_string(hide_password=False), topic, answers):
        return await _measure(servers, topic, answers, _is_anything, rate, seconds)


async def _measure(
    servers: Servers, topic: str, answers: str, answers_it: Callable[[ConsumerRecord], bool], rate: int, seconds: float
) -> Percentiles:
    """Return the milliseconds from passing a request to the producer to reading its answer."""
    sent: dict[bytes, float] = {}
    took: dict[bytes, float] = {}
    consumer = AIOKafkaConsumer(answers, bootstrap_servers=servers.bootstrap, auto_offset_reset="latest")
    producer = make_producer(Cluster(servers.bootstrap), "benchmark")
    await consumer.start()
    await consumer.seek_to_end()
    await producer.start()

    async def listen() -> None:
        async for record in consumer:
            if record.key in sent and record.key not in took and answers_it(record):
                took[record.key] = 1000 * (time.perf_counter() - sent[record.key])

    listening = asyncio.create_task(listen())
    try:
        await _until_it_answers(producer, topic, sent, took)
        await _send(producer, topic, sent, rate, _WARM_UP_JOBS / rate)
        warm = len(sent)
        await _send(producer, topic, sent, rate, seconds)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while len(took) < len(sent) - 1:  # the first request may have arrived before anybody read answers
                await asyncio.sleep(0.1)
    finally:
        listening.cancel()
        await producer.stop()
        await consumer.stop()
    measured = [took[key] for key in list(sent)[warm:] if key in took]
    return {name: float(np.percentile(measured, share)) for name, share in (("p50", 50), ("p99", 99))}


async def _until_it_answers(
    producer: AIOKafkaProducer, topic: str, sent: dict[bytes, float], took: dict[bytes, float]
) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while not took:
            await _send(producer, topic, sent, 1, 1)
            await asyncio.sleep(1)
            for key in [key for key in sent if key not in took][:-1]:
                del sent[key]


async def _send(producer: AIOKafkaProducer, topic: str, sent: dict[bytes, float], rate: int, seconds: float) -> None:
    """Send requests at a steady rate without waiting for answers."""
    begun = time.perf_counter()
    for number in range(max(1, round(rate * seconds))):
        await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
        job_id = f"latency-{uuid4().hex}"
        request = {name: value for name, value in REQUEST.items() if name != "deadline"} | {"job_id": job_id}
        event = outside_event("relaycore", JobRequested(job_id=job_id, request=request), correlation_id=job_id)
        value, headers = encode(event)
        sent[job_id.encode()] = time.perf_counter()
        await producer.send(topic, value, job_id.encode(), headers=headers)


async def measure(servers: Servers, *, rounds: int, seconds: float) -> dict[str, list[Percentiles]]:
    """Return percentiles by arm and rate, round by round; every round runs both arms at every rate."""
    found: dict[str, list[Percentiles]] = {}
    for _ in range(rounds):
        for rate in RATES:
            for arm, run in (("orchestrator", run_orchestrator), ("bare", run_bare)):
                found.setdefault(f"{arm} {rate}/s", []).append(await run(servers, rate, seconds))
    return found


def summary(found: dict[str, list[Percentiles]]) -> dict[str, dict[str, float]]:
    """Return for each rate the medians over the rounds, and the medians of the ratios of the same round."""
    result = {}
    for rate in RATES:
        ours, bare = found[f"orchestrator {rate}/s"], found[f"bare {rate}/s"]
        result[f"{rate}/s"] = {
            **{name: median(one[name] for one in ours) for name in ("p50", "p99")},
            **{
                f"ratio_bare_{name}": median(one[name] / least[name] for one, least in zip(ours, bare, strict=True))
                for name in ("p50", "p99")
            },
        }
    return result
