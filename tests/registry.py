"""A registry on real servers with a database of its own, and register steps as the orchestrator asks for them."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import uvicorn
from aiokafka import AIOKafkaConsumer
from sqlalchemy.engine import make_url

from schemas.artifacts import ArtifactRef
from schemas.envelope import Event, encode
from schemas.jobs import JobCancelled, StepCompleted, StepRequested, StepResult
from schemas.ledger import RowsUsed
from schemas.lines import Message, Prediction
from schemas.row_index import FILE, IndexedRow, write_row_index
from schemas.steps import RegisterSettings, ResolveSettings
from schemas.topics import DATASETS, JOBS, MODELS
from services.chassis.kafka.publisher import make_producer
from services.chassis.replay.rebuild import verify
from services.chassis.serving.http import application
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.service import Service
from services.chassis.serving.web.server import server_config
from services.chassis.serving.web.settings import HttpSettings
from services.chassis.storage.artifacts.errors import MANIFEST
from services.chassis.storage.artifacts.store import ArtifactStore
from services.registry.app import assembled
from services.registry.deploying.driver import Driver
from services.registry.deploying.settings import ServingSettings
from services.registry.domain.models import RegistryDomain
from services.registry.effects import RegistryEffects
from services.registry.settings import RegistrySettings
from tests.databases import provide
from tests.log import event_of
from tests.steps import an_event, request
from tests.toy import until

OUTCOMES = ("StepCompleted", "StepFailed", "StepCancelled")


class OwnSteps(RegistryDomain):
    """A domain that ignores the steps of other tests on the shared broker, and has its own source."""

    def __init__(self, prefix: str, source: str) -> None:
        super().__init__()
        self.prefix, self.source = prefix, source

    def touches(self, event: Event) -> tuple[Any, ...]:
        return super().touches(event) if event.correlation_id.startswith(self.prefix) else ()


class Registry:
    """One registry and the outsiders that use it."""

    def __init__(
        self,
        kafka: str,
        database_url: str,
        home: Path,
        driver_of: Callable[[], Driver] | None = None,
        serving: ServingSettings | None = None,
    ) -> None:
        name = f"registry_{uuid4().hex[:8]}"
        self.prefix, self.source = f"{name}-", f"neuroweaver/{name}"
        own = make_url(database_url).set(database=name).render_as_string(hide_password=False)
        self.settings = RegistrySettings(
            kafka_bootstrap=kafka,
            registry_database_url=own,
            home=home,
            session_timeout_ms=6000,
            drain_seconds=5,
            workers=2,
            serving=serving or ServingSettings(),
        )
        self.store = ArtifactStore(self.settings.artifacts_uri)
        self.home, self.driver_of = home, driver_of
        self.http = httpx2.AsyncClient()
        self.callers = httpx2.AsyncClient()
        """Asks the address for callers."""
        self.said: list[Event] = []
        """The events that it published since it started, in order per partition."""
        self.mark = ""
        self.begin()

    def begin(self) -> None:
        """Use other jobs, models and another requester from now on, so that tests can share one registry."""
        self.mark = uuid4().hex[:8]

    def name(self, model: str) -> str:
        """Return the full name of a model of this test."""
        return f"{model}-{self.mark}"

    def job(self, job: str) -> str:
        """Return the id of a job of this test."""
        return f"{self.prefix}{self.mark}-{job}"

    def runtime(self) -> Runtime:
        """Build the runtime like `app.build`, with another domain."""
        domain = OwnSteps(self.prefix, self.source)
        return Runtime(self.settings, "registry", domain, topics=(JOBS, MODELS, DATASETS), effects=RegistryEffects())

    def service(self) -> Service:
        """Build the service."""
        return assembled(self.runtime(), self.driver_of, self.settings.serving)

    async def differences(self) -> int:
        """Return in how many rows the projection differs from the log, as `audit verify` counts them."""
        return (await verify(self.runtime().projection)).differences

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Registry"]:
        """Run the registry with HTTP until it is ready."""
        await provide(self.settings, "registry")
        service = self.service()
        config = server_config(application([service]), HttpSettings(), graceful_seconds=2)
        config.port = 0
        server = uvicorn.Server(config)
        consumer = await tail(self.settings.kafka_bootstrap, JOBS.name, MODELS.name, DATASETS.name)
        listening = asyncio.create_task(self._listen(consumer))
        serving = asyncio.create_task(server.serve())
        try:
            await until(lambda: server.started)
            port = server.servers[0].sockets[0].getsockname()[1]
            self.http = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=60)
            self.callers = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1", timeout=60)
            await until(lambda: service.health.ready, what=lambda: service.health.missing)
            yield self
        finally:
            await self.http.aclose()
            await self.callers.aclose()
            server.should_exit = True
            await serving
            listening.cancel()
            await consumer.stop()

    async def _listen(self, consumer: AIOKafkaConsumer) -> None:
        async for record in consumer:
            event = event_of(record)
            if event and event.source == self.source:
                self.said.append(event)

    def adapter(self, content: str = "weights", **files: str) -> ArtifactRef:
        """Store an artifact that looks like an adapter, with additional `files`, whose names have `__` for dots."""
        known = {"adapter_config.json": "{}", "adapter_model.safetensors": content, "training.json": '{"rank": 8}'}
        return self._put(known, files)

    def predictions(self, **answers: str) -> ArtifactRef:
        """Store the answers of an evaluation, by the id of their row."""
        question = Message(role="user", content="What is it?")
        lines = (
            Prediction(
                id=row, messages=(question,), columns={}, reference="right", greedy=text, samples=(), nll=None
            ).model_dump_json()
            for row, text in answers.items()
        )
        return self._put({Prediction.FILE: "\n".join(lines)}, {})

    def model(self, **files: str) -> ArtifactRef:
        """Store an artifact that looks like a whole model, alike."""
        return self._put({"config.json": "{}", "model.safetensors": "weights"}, files)

    def stored(self, made: ArtifactRef) -> ArtifactRef:
        """Store an artifact of another store."""
        folder = self.home / f"made-{uuid4().hex[:8]}"
        shutil.copytree(made.uri, folder, ignore=shutil.ignore_patterns(MANIFEST))
        return self.store.put(folder)

    def _put(self, known: dict[str, str], more: dict[str, str]) -> ArtifactRef:
        folder = self.home / f"made-{uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        for name, text in {**known, **{name.replace("__", "."): text for name, text in more.items()}}.items():
            (folder / name).write_text(text)
        return self.store.put(folder)

    def starting(self, job: str, reference: str, **found: Any) -> StepRequested:
        """Return the request of the first step of a job that starts from a version, or is judged by one."""
        settings = ResolveSettings(base_model=reference, **found)
        return request(self.job(job), "resolve", 1, kind="resolve", settings=settings, requester=self.mark)

    def step(
        self, job: str, model: str, adapter: ArtifactRef, *, attempt: int = 1, base: tuple[str, str] = ("base", "b" * 64),
        starting: StepResult | None = None, **fields: Any,
    ) -> StepRequested:  # fmt: skip
        """Return the request of a job's last step; `base` is the base model's reference and digest, and `starting` the result of
        its step of kind resolve. A field `whole` is a whole model that is registered instead, `data` the facts about the data, `predictions` the stored answers,
        `metrics` those of the evaluation, `more_results` those of further steps."""
        whole = fields.pop("whole", None)
        nowhere = ArtifactRef(uri="/p", sha256="a" * 64, size=1)
        evaluated = StepResult(
            outputs={"predictions": fields.pop("predictions", nowhere)},
            metrics=fields.pop("metrics", {"exact_match": 0.9}),
            inputs={"adapter": adapter.sha256},
        )
        results = {
            "train": StepResult(),
            "prepare": StepResult(
                facts={"dataset_sha256": "d" * 64, "base_model_sha256": base[1], **fields.pop("data", {})}
            ),
            "evaluate-base": StepResult(metrics={"exact_match": 0.0}),
            "evaluate": evaluated,
        }
        if starting is not None:
            results["resolve"] = starting
        results |= fields.pop("more_results", {})
        if whole is not None:
            results["train"] = StepResult(outputs={"model": whole})
        settings = RegisterSettings(
            base_model=base[0],
            model=self.name(model),
            alias=fields.pop("alias", "candidate"),
            version=fields.pop("version", None),
        )
        return request(
            self.job(job), "register", attempt, kind="register", settings=settings, inputs={"model": whole} if whole else {"adapter": adapter},
            results=results, requester=self.mark, **fields,
        )  # fmt: skip

    def prepared(self, job: str, name: str, digest: str, artifact: ArtifactRef, **more: Any) -> StepCompleted:
        """Return what a trainer says when it stored rows as a data set of this test; `more` are other facts."""
        outputs = {"dataset": artifact, **more.pop("outputs", {})}
        facts = {
            "dataset_name": self.name(name),
            "snapshot_sha256": digest,
            "dataset_sha256": "d" * 64,
            "requester": self.mark,
        }
        result = StepResult(outputs=outputs, metrics={"rows_train": 9.0, "tokens_median_row": 4.5}, facts={**facts, **more})
        return StepCompleted(job_id=self.job(job), step="prepare", attempt=1, kind="prepare", result=result)

    def trained(self, job: str, uses: Mapping[str, int], read: ArtifactRef, step: str = "train") -> StepCompleted:
        """Return what a trainer says when a job of this test learnt from rows, each so often."""
        ledger = self._put({RowsUsed.FILE: RowsUsed.of(uses.items()).model_dump_json()}, {})
        result = StepResult(outputs={"rows_used": ledger}, inputs={"dataset": read.sha256})
        return StepCompleted(job_id=self.job(job), step=step, attempt=1, kind="train", result=result)

    def index(self, **rows: str) -> ArtifactRef:
        """Store the index of rows of the training split, whose ids have `_` for hyphens, by their digests."""
        named = [(digest, IndexedRow("train", row.replace("_", "-"))) for row, digest in rows.items()]
        folder = self.home / f"made-{uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        write_row_index(named, folder / FILE)
        return self.store.put(folder)

    async def ask(self, *steps: StepRequested | StepCompleted | JobCancelled) -> None:
        """Publish a StepRequested or the end of a job as the orchestrator does, or what another executor completed."""
        producer = make_producer(self.settings.cluster, "orchestrator")
        await producer.start()
        for step in steps:
            value, headers = encode(an_event(step, subject=step.job_id))
            await producer.send(JOBS.name, value, step.job_id.encode(), headers=headers)
        await producer.flush()
        await producer.stop()

    async def outcome(self, step: StepRequested) -> Event:
        """Wait for the outcome of the attempt and return it."""
        subject = f"{step.job_id}/{step.step}/{step.attempt}"

        def ended() -> list[Event]:
            return [event for event in self.said if event.subject == subject and event.type in OUTCOMES]

        await until(ended, what=lambda: json.dumps(step.model_dump(mode="json")))
        return ended()[0]

    async def result(self, step: StepRequested) -> StepResult:
        """Wait for the attempt to be completed and return its result."""
        ended = (await self.outcome(step)).data
        assert isinstance(ended, StepCompleted), ended
        return ended.result

    async def about(self, model: str, count: int) -> list[Event]:
        """Wait until it published `count` events about a model of this test, and return them."""

        def told() -> list[Event]:
            return [event for event in self.said if event.subject == self.name(model)]

        await until(lambda: len(told()) >= count, what=told)
        return told()


async def tail(kafka: str, *topics: str) -> AIOKafkaConsumer:
    """Return a consumer without a group that reads records appended from now on."""
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=kafka, enable_auto_commit=False)
    await consumer.start()
    await consumer.seek_to_end()
    for partition in consumer.assignment():
        await consumer.position(partition)
    return consumer
