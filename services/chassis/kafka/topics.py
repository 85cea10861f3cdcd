"""Applies the topic catalogue to a Kafka cluster: reports differences, creates missing topics, never loses a record."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, NoError, TopicAlreadyExistsError, for_code

from schemas.topics import CATALOGUE, Topic
from services.chassis.kafka.catalogue import TopicChange, configuration, differences, fits
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.metadata import ask
from services.chassis.kafka.reach import start
from services.chassis.process.logging import get_logger
from services.chassis.process.transient import described

_log = get_logger(__name__)
_SET_ON_TOPIC = 1
"""Kafka's code for a setting from the topic's own configuration."""


class TopicFailure(Exception):
    """The broker refused a change."""


class _Setting(NamedTuple):
    value: str
    own: bool
    """Whether it is set on the topic itself."""


async def plan(cluster: Cluster) -> list[TopicChange]:
    """The changes that `apply` would make, in the order of the catalogue; empty if nothing differs."""
    async with _admin(cluster) as admin:
        return await _differences(admin, CATALOGUE)


async def apply(cluster: Cluster, catalogue: Sequence[Topic] = CATALOGUE) -> list[TopicChange]:
    """Create missing topics and set configurations; return the changes made and the remaining conflicts."""
    topics = {topic.name: topic for topic in catalogue}
    async with _admin(cluster) as admin:
        changes = await _differences(admin, catalogue)
        missing = [_new(topics[change.topic]) for change in changes if change.action == "create"]
        if missing:
            response = await admin.create_topics(missing)
            for name, code, *_ in response.topic_errors:
                if for_code(code) not in (NoError, TopicAlreadyExistsError):
                    raise TopicFailure(f"topic {name} was not created: {for_code(code).__name__}")
        settings = await _configurations(admin, [change.topic for change in changes if change.action == "configure"])
        changed = [
            ConfigResource(ConfigResourceType.TOPIC, name, _mended(topics[name], known)) for name, known in settings.items()
        ]
        for response in await admin.alter_configs(changed) if changed else ():
            for code, message, _type, name in response.resources:
                if code:
                    raise TopicFailure(f"topic {name} was not configured: {message or for_code(code).__name__}")
        return changes


async def largest_record(cluster: Cluster, topic: str) -> int | None:
    """`max.message.bytes` of a topic; None if the cluster does not report it, for whatever reason."""
    try:
        async with _admin(cluster) as admin:
            return int((await _configurations(admin, [topic]))[topic]["max.message.bytes"].value)
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


def _mended(topic: Topic, known: Mapping[str, _Setting]) -> dict[str, str]:
    """All settings of the topic: Kafka resets those that a change of configuration omits."""
    own = {name: setting.value for name, setting in known.items() if setting.own}
    wanted = configuration(topic)
    return own | {name: value for name, value in wanted.items() if not fits(name, own.get(name), value)}


def _new(topic: Topic) -> NewTopic:
    new = NewTopic(topic.name, topic.partitions, 1, topic_configs=dict(configuration(topic)))
    new.replication_factor = -1  # the cluster's default; the constructor refuses it
    return new


async def _differences(admin: AIOKafkaAdminClient, catalogue: Sequence[Topic]) -> list[TopicChange]:
    found = await ask(admin._client, [topic.name for topic in catalogue])
    settings = await _configurations(admin, sorted(found.topics))
    changes = []
    for topic in catalogue:
        known = {name: setting.value for name, setting in settings.get(topic.name, {}).items()}
        changes += differences(topic, found.topics.get(topic.name), known, found.brokers)
    return changes


async def _configurations(admin: AIOKafkaAdminClient, names: list[str]) -> dict[str, dict[str, _Setting]]:
    if not names:
        return {}
    responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    found = {}
    for code, message, _type, name, entries in (each for response in responses for each in response.resources):
        if code:
            raise TopicFailure(f"the configuration of topic {name} cannot be read: {message or for_code(code).__name__}")
        found[name] = {entry[0]: _Setting(entry[1], entry[3] == _SET_ON_TOPIC) for entry in entries}
    return found
