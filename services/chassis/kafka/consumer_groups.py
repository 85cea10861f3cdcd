"""Describes a consumer group of the newer rebalance protocol (KIP-848), which brokers report as absent in the older request.

One member that uses it (`group.protocol=consumer`) turns the whole group into such a group, and the members that use the
older protocol stay in it. aiokafka 0.14 does not support the request, so it is defined here with aiokafka's protocol classes.
"""

from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupIdNotFound, IncompatibleBrokerVersion, NoError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

from services.chassis.kafka.metadata import Uuid

_TEXT = CompactString()
_ASSIGNED = CompactArray(
    ("topic_id", Uuid), ("topic", _TEXT), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)
)  # fmt: skip
_MEMBERS = CompactArray(
    ("member_id", _TEXT),
    ("instance_id", _TEXT),
    ("rack_id", _TEXT),
    ("member_epoch", Int32),
    ("client_id", _TEXT),
    ("client_host", _TEXT),
    ("topic_names", CompactArray(_TEXT)),
    ("topic_regex", _TEXT),
    ("assigned", _ASSIGNED),
    ("assigned_tags", TaggedFields),
    ("target", _ASSIGNED),
    ("target_tags", TaggedFields),
    ("tags", TaggedFields),
)
_GROUPS = CompactArray(
    ("error_code", Int16),
    ("error_message", _TEXT),
    ("group_id", _TEXT),
    ("state", _TEXT),
    ("epoch", Int32),
    ("assignment_epoch", Int32),
    ("assignor", _TEXT),
    ("members", _MEMBERS),
    ("authorized_operations", Int32),
    ("tags", TaggedFields),
)


class ConsumerGroupMember(NamedTuple):
    """One member, whichever of the two protocols it uses."""

    client_id: str
    host: str
    partitions: tuple[tuple[str, int], ...]
    """The partitions that it reads now."""


async def members_of_consumer_group(admin: AIOKafkaAdminClient, group: str) -> list[ConsumerGroupMember]:
    """Return the members; none if there is no such group, or if the broker does not know the protocol.

    Raises the broker's errors.
    """
    node = await admin.find_coordinator(group)
    try:
        response = await admin._client.send(node, _DescribeRequest(group))
    except (IncompatibleBrokerVersion, NotImplementedError):
        return []
    found: list[ConsumerGroupMember] = []
    for code, _message, _group, _state, _epoch, _assigned, _assignor, members, *_ in response.groups:
        if for_code(code) is GroupIdNotFound:
            continue
        if for_code(code) is not NoError:
            raise for_code(code)(f"group {group} cannot be described")
        found += [ConsumerGroupMember(member[4], member[5], _partitions(member[8])) for member in members]
    return found


def _partitions(assigned: Any) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((topic, number) for _id, topic, numbers, _tags in assigned for number in numbers))


class _DescribeResponse(Response):  # type: ignore[misc]
    API_KEY = 69
    API_VERSION = 0
    SCHEMA = Schema(("throttle_time_ms", Int32), ("groups", _GROUPS), ("tags", TaggedFields))


class _DescribeRequestV0(RequestStruct):  # type: ignore[misc]
    API_KEY = 69
    API_VERSION = 0
    RESPONSE_TYPE = _DescribeResponse
    FLEXIBLE_VERSION = True
    SCHEMA = Schema(("group_ids", CompactArray(_TEXT)), ("include_authorized_operations", Boolean), ("tags", TaggedFields))


class _DescribeRequest(Request[_DescribeRequestV0]):  # type: ignore[misc]
    API_KEY = 69

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[Any]) -> Any:
        return request_struct_class([self._group], False, {})
