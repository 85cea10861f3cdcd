"""A member of a consumer group that uses the newer rebalance protocol (KIP-848), which aiokafka does not support."""

from typing import Any, Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

from services.chassis.kafka.cluster import Cluster

_LEAVING = -1
_TEXT = CompactString()
_OWNED = CompactArray(("topic", _TEXT), ("partitions", CompactArray(Int32)), ("tags", TaggedFields))


class NewerMember:
    """Joins a group with one heartbeat and leaves it with another one."""

    def __init__(self, cluster: Cluster, group: str, client_id: str) -> None:
        self._admin = AIOKafkaAdminClient(**cluster.connection(), client_id=client_id)
        self._group, self._member = group, ""

    async def __aenter__(self) -> Self:
        await self._admin.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._admin.close()

    async def join(self, topic: str) -> None:
        self._member = (await self._heartbeat(0, [topic])).member_id

    async def leave(self) -> None:
        await self._heartbeat(_LEAVING, None)

    async def _heartbeat(self, epoch: int, topics: list[str] | None) -> Any:
        node = await self._admin.find_coordinator(self._group)
        response = await self._admin._client.send(node, _Heartbeat(self._group, self._member, epoch, topics))
        assert response.error_code == 0, response
        return response


class _HeartbeatResponse(Response):  # type: ignore[misc]
    """Its end, the assignment, is not read."""

    API_KEY = 68
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32), ("error_code", Int16), ("error_message", _TEXT), ("member_id", _TEXT), ("epoch", Int32)
    )


class _HeartbeatV0(RequestStruct):  # type: ignore[misc]
    API_KEY = 68
    API_VERSION = 0
    RESPONSE_TYPE = _HeartbeatResponse
    FLEXIBLE_VERSION = True
    SCHEMA = Schema(
        ("group_id", _TEXT), ("member_id", _TEXT), ("epoch", Int32), ("instance_id", _TEXT), ("rack_id", _TEXT),
        ("rebalance_timeout_ms", Int32), ("topics", CompactArray(_TEXT)), ("assignor", _TEXT), ("owned", _OWNED), ("tags", TaggedFields),
    )  # fmt: skip


class _Heartbeat(Request[_HeartbeatV0]):  # type: ignore[misc]
    API_KEY = 68

    def __init__(self, group: str, member: str, epoch: int, topics: list[str] | None) -> None:
        self._values: tuple[Any, ...] = group, member, epoch, None, None, 60_000, topics, None, []

    def build(self, request_struct_class: type[Any]) -> Any:
        return request_struct_class(*self._values, {})
