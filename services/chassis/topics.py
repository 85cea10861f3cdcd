"""Why: brings a Kafka cluster to the topic catalogue: says what differs, creates what is missing, never loses a record."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, NoError, TopicAlreadyExistsError, for_code

from schemas.topics import CATALOGUE, Topic
from services.chassis.cluster import Cluster
from services.chassis.logging import get_logger
from services.chassis.reach import start
from services.chassis.surroundings import described

_log = get_logger(__name__)

Action = Literal["create", "configure", "conflict"]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between the cluster and the catalogue. A conflict is for a person to decide; `apply` leaves it alone."""

    topic: str
    action: Action
    detail: str


class TopicFailure(Exception):
    """The broker refused a change."""


def configuration(topic: Topic) -> Mapping[str, str]:
    """The topic-level configuration that the catalogue asks for.

    A record's time is the broker's: a sender with a wrong clock cannot move a fact into another moment of the audit.
    """
    retention = -1 if topic.retention_ms is None else topic.retention_ms
    return {
        "cleanup.policy": topic.cleanup,
        "retention.ms": str(retention),
        "message.timestamp.type": "LogAppendTime",
    }


async def plan(cluster: Cluster) -> list[Change]:
    """What `apply` would do, in the order of the catalogue; empty when nothing differs."""
    async with _admin(cluster) as admin:
        return await _differences(admin)


async def apply(cluster: Cluster) -> list[Change]:
    """Create missing topics and set configurations; returns the changes made, and the conflicts left."""
    topics = {topic.name: topic for topic in CATALOGUE}
    async with _admin(cluster) as admin:
        changes = await _differences(admin)
        missing = [_new(topics[change.topic]) for change in changes if change.action == "create"]
        if missing:
            response = await admin.create_topics(missing)
            for name, code, *_ in response.topic_errors:
                if for_code(code) not in (NoError, TopicAlreadyExistsError):
                    raise TopicFailure(f"topic {name} was not created: {for_code(code).__name__}")
        changed = [
            ConfigResource(ConfigResourceType.TOPIC, change.topic, dict(configuration(topics[change.topic])))
            for change in changes
            if change.action == "configure"
        ]
        for response in await admin.alter_configs(changed) if changed else ():
            for code, message, _type, name in response.resources:
                if code:
                    raise TopicFailure(f"topic {name} was not configured: {message or for_code(code).__name__}")
        return changes


async def largest_record(cluster: Cluster, topic: str) -> int | None:
    """`max.message.bytes` of a topic; None where the cluster does not say, for whatever reason."""
    try:
        async with _admin(cluster) as admin:
            return int((await _configurations(admin, [topic]))[topic]["max.message.bytes"])
    except (KafkaError, OSError, LookupError, ValueError) as error:
        _log.warning("max.message.bytes is not known", topic=topic, error=described(error))
        return None


@asynccontextmanager
async def _admin(cluster: Cluster) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**cluster.connection(), client_id="neuroweaver-topics", request_timeout_ms=15_000)
    try:
        await start(admin, cluster)
        yield admin
    finally:
        await admin.close()


def _new(topic: Topic) -> NewTopic:
    new = NewTopic(topic.name, topic.partitions, 1, topic_configs=dict(configuration(topic)))
    new.replication_factor = -1  # the cluster's default; the constructor refuses it
    return new


async def _differences(admin: AIOKafkaAdminClient) -> list[Change]:
    existing = set(await admin.list_topics()) & {topic.name for topic in CATALOGUE}
    partitions = {}
    if existing:
        partitions = {found["topic"]: len(found["partitions"]) for found in await admin.describe_topics(sorted(existing))}
    configurations = await _configurations(admin, sorted(existing))
    changes = []
    for topic in CATALOGUE:
        wanted = configuration(topic)
        if topic.name not in existing:
            settings = ", ".join(f"{name}={value}" for name, value in wanted.items())
            changes.append(Change(topic.name, "create", f"{topic.partitions} partitions, {settings}"))
            continue
        if partitions[topic.name] < topic.partitions:
            detail = (
                f"has {partitions[topic.name]} partitions, the catalogue says {topic.partitions}; adding some would move keys to "
                "other partitions and break their order: keep the number, or move to a new cluster"
            )
            changes.append(Change(topic.name, "conflict", detail))
        known = configurations[topic.name]
        differing = {name: value for name, value in wanted.items() if known.get(name) != value}
        if differing:
            detail = ", ".join(f"{name}: {known.get(name)} → {value}" for name, value in differing.items())
            changes.append(Change(topic.name, "configure", detail))
    return changes


async def _configurations(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    found = {}
    for code, message, _type, name, entries in (each for response in responses for each in response.resources):
        if code:
            raise TopicFailure(f"the configuration of topic {name} cannot be read: {message or for_code(code).__name__}")
        found[name] = {entry[0]: entry[1] for entry in entries}
    return found
