"""Requests the demo's job as an outside system such as RelayCore does: through Kafka only, without any service's API."""

from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer

from schemas.base import EventData
from schemas.envelope import Event, Unhandled, UnknownVersion, Unreadable, encode
from schemas.requests import JobCancelRequested, JobRequest, JobRequested
from schemas.topics import EVENT_TYPES, JOBS, MODELS, PROGRESS, REQUESTS, TOPIC_OF, aggregate_key
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.publisher import make_producer, outside_event, stop_quietly
from services.chassis.kafka.reach import start
from services.chassis.kernel.records import event_in

SOURCE = "relaycore/demo"
TOPICS = tuple(topic.name for topic in (REQUESTS, JOBS, PROGRESS, MODELS))


class Outsider:
    """One producer, and one consumer without a group that reads what is appended after it starts."""

    def __init__(self, cluster: Cluster, job_id: str) -> None:
        self._cluster, self._job_id = cluster, job_id
        self._producer = make_producer(cluster, "relaycore-demo")
        self._consumer = AIOKafkaConsumer(
            *TOPICS, **cluster.connection(), client_id="relaycore-demo", group_id=None, enable_auto_commit=False
        )
        self._seen: set[str] = set()

    async def __aenter__(self) -> Self:
        try:
            await start(self._producer, self._cluster)
            await start(self._consumer, self._cluster)
            await self._consumer.seek_to_end()
            for partition in self._consumer.assignment():
                await self._consumer.position(partition)  # fixes the position now, before anything is published
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._consumer.stop()
        await stop_quietly(self._producer)

    async def request(self, job: JobRequest) -> None:
        """Publish JobRequested; return when the broker has acknowledged it."""
        await self._publish(JobRequested(job_id=self._job_id, request=job.model_dump(mode="json")))

    async def cancel(self, reason: str) -> None:
        """Publish JobCancelRequested; return when the broker has acknowledged it."""
        await self._publish(JobCancelRequested(job_id=self._job_id, requester=SOURCE, reason=reason))

    async def read(self, seconds: float) -> list[tuple[str, Event]]:
        """Return new events of this job with their topics, each once; wait up to `seconds` for the first."""
        found = []
        batches = await self._consumer.getmany(timeout_ms=round(seconds * 1000))
        for partition, records in batches.items():
            for record in records:
                try:
                    event = event_in(record, EVENT_TYPES)
                except (Unreadable, UnknownVersion):  # a record of another sender
                    continue
                if isinstance(event, Unhandled) or event.correlation_id != self._job_id or event.id in self._seen:
                    continue
                self._seen.add(event.id)
                found.append((partition.topic, event))
        return found

    async def _publish(self, data: EventData) -> None:
        event = outside_event(SOURCE, data, correlation_id=self._job_id, subject=self._job_id)
        value, headers = encode(event)
        await self._producer.send_and_wait(TOPIC_OF[event.type].name, value, aggregate_key(data).encode(), headers=headers)
