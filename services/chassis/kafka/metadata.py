"""Requests a cluster's identity and topics: cluster id, topic ids, partitions with their replicas.

aiokafka 0.14 supports Metadata up to version 5, which has no topic ids. Versions 10 to 12 have them: they are defined here
with aiokafka's own protocol classes, so that they use its connections with their security.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from uuid import UUID

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IncompatibleBrokerVersion, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.reach import start

_NO_ID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class FoundTopic:
    """A topic as the cluster has it now."""

    topic_id: str
    partitions: frozenset[int]
    replicas: int
    """Replicas of the partition that has the fewest."""
    in_sync: int
    """Replicas in sync of the partition that has the fewest."""


@dataclass(frozen=True, slots=True)
class FoundLog:
    """A cluster's identity and topics. A topic that is missing in `topics` does not exist."""

    cluster_id: str
    topics: Mapping[str, FoundTopic]
    brokers: int = 1
    """Number of the cluster's brokers."""


def ids_of(found: FoundLog) -> dict[str, str]:
    """Return the id of each topic."""
    return {name: topic.topic_id for name, topic in found.topics.items()}


class NoIdentity(Exception):
    """The cluster does not report its identity, or answers with an error; it is unknown which log this is."""


async def ask(client: AIOKafkaClient, topics: Iterable[str]) -> FoundLog:
    """Return the cluster's present identity and which of `topics` it has. Raises NoIdentity and the broker's errors."""
    names = sorted(set(topics))
    try:
        answer = await client.send(client.get_random_node(), _MetadataRequest(names))
    except (IncompatibleBrokerVersion, NotImplementedError) as error:
        raise NoIdentity(f"the broker does not report topic ids; use Apache Kafka 2.8 or later: {error}") from error
    if not answer.cluster_id:
        raise NoIdentity("the broker does not report the cluster's id")
    found = {}
    for code, name, topic_id, _internal, partitions, _operations, _tags in answer.topics:
        if for_code(code) is UnknownTopicOrPartitionError:
            continue
        if code or topic_id == _NO_ID:
            raise NoIdentity(f"the broker does not report the id of topic {name}: {for_code(code).__name__}")
        found[name] = FoundTopic(
            str(topic_id),
            frozenset(partition[1] for partition in partitions),
            min((len(partition[4]) for partition in partitions), default=0),
            min((len(partition[5]) for partition in partitions), default=0),
        )
    return FoundLog(answer.cluster_id, found, len(answer.brokers))


async def ask_once(cluster: Cluster, topics: Iterable[str]) -> FoundLog:
    """Return the same over a separate connection. Raises as `ask` does."""
    admin = AIOKafkaAdminClient(**cluster.connection(), client_id="neuroweaver-identity", request_timeout_ms=15_000)
    try:
        await start(admin, cluster)
        return await ask(admin._client, topics)
    finally:
        await admin.close()


class Uuid(AbstractType[UUID]):  # type: ignore[misc]
    """Kafka's type of a topic's id."""

    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))


_BROKERS = CompactArray(
    ("node_id", Int32), ("host", CompactString()), ("port", Int32), ("rack", CompactString()), ("tags", TaggedFields)
)  # fmt: skip
_PARTITIONS = CompactArray(
    ("error_code", Int16),
    ("partition", Int32),
    ("leader", Int32),
    ("leader_epoch", Int32),
    ("replicas", CompactArray(Int32)),
    ("in_sync", CompactArray(Int32)),
    ("offline", CompactArray(Int32)),
    ("tags", TaggedFields),
)
_TOPICS = CompactArray(
    ("error_code", Int16),
    ("name", CompactString()),
    ("topic_id", Uuid),
    ("is_internal", Boolean),
    ("partitions", _PARTITIONS),
    ("authorized_operations", Int32),
    ("tags", TaggedFields),
)
_WANTED = CompactArray(("topic_id", Uuid), ("name", CompactString()), ("tags", TaggedFields))
_HEAD: tuple[tuple[str, Any], ...] = (
    ("throttle_time_ms", Int32),
    ("brokers", _BROKERS),
    ("cluster_id", CompactString()),
    ("controller_id", Int32),
    ("topics", _TOPICS),
)


class _MetadataResponseV10(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(*_HEAD, ("cluster_authorized_operations", Int32), ("tags", TaggedFields))


class _MetadataResponseV11(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 11
    SCHEMA = Schema(*_HEAD, ("tags", TaggedFields))


class _MetadataResponseV12(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = _MetadataResponseV11.SCHEMA


class _MetadataRequestV10(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _MetadataResponseV10
    FLEXIBLE_VERSION = True
    SCHEMA = Schema(
        ("topics", _WANTED),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequestV11(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 11
    RESPONSE_TYPE = _MetadataResponseV11
    FLEXIBLE_VERSION = True
    SCHEMA = Schema(
        ("topics", _WANTED),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequestV12(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 12
    RESPONSE_TYPE = _MetadataResponseV12
    FLEXIBLE_VERSION = True
    SCHEMA = _MetadataRequestV11.SCHEMA


class _MetadataRequest(Request[_MetadataRequestV10 | _MetadataRequestV11 | _MetadataRequestV12]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[Any]) -> Any:
        wanted: list[tuple[UUID, str, dict[int, bytes]]] = [(_NO_ID, name, {}) for name in self._topics]
        flags = [False] * (len(request_struct_class.SCHEMA) - 2)
        return request_struct_class(wanted, *flags, {})
