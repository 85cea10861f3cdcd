"""`topics apply` mends what is safe and leaves alone what an operator has set beside it; running services say what differs."""

from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.new_partitions import NewPartitions

from schemas.topics import MODELS, REQUESTS
from services.chassis.kafka import catalogue_watch, topics
from services.chassis.kafka.cluster import Cluster
from services.chassis.process.metrics import REGISTRY
from tests.toy import Toy, until


async def configure(cluster: Cluster, topic: str, **settings: str) -> None:
    admin = AIOKafkaAdminClient(**cluster.connection())
    await admin.start()
    wanted = {name.replace("_", "."): value for name, value in settings.items()}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, wanted)])
    await admin.close()


async def settings_of(cluster: Cluster, topic: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(**cluster.connection())
    await admin.start()
    (response,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    await admin.close()
    return {entry[0]: entry[1] for entry in response.resources[0][4]}


async def test_what_differs_is_said_while_services_run_and_mended_without_touching_other_settings(
    own_stack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_watch, "LOOK_SECONDS", 0.3)
    cluster = own_stack.cluster
    toy = Toy(own_stack.kafka_bootstrap, own_stack.database_url, tmp_path)
    await toy.create()
    admin = AIOKafkaAdminClient(**cluster.connection())
    await admin.start()

    def measured(topic: str, action: str) -> float | None:
        labels = {"service": toy.name, "topic": topic, "action": action}
        return REGISTRY.get_sample_value("neuroweaver_topic_differences", labels)

    async with toy.running() as service:
        await admin.create_partitions({MODELS.name: NewPartitions(8)})
        await until(lambda: "has 8 partitions" in service.health.conditions["topics"].reason)
        assert service.health.ready
        assert measured(MODELS.name, "note") == 1
        await configure(cluster, REQUESTS.name, retention_ms="3600000", segment_ms="7200000", max_message_bytes="16384")
        await until(lambda: "topics" in service.health.missing)
        assert "neuroweaver.requests retention.ms: 3600000 → -1" in service.health.missing["topics"]
        assert measured(REQUESTS.name, "configure") == 1
        assert {change.topic for change in await topics.apply(cluster)} == {REQUESTS.name, MODELS.name}
        await until(lambda: service.health.ready)
        assert measured(REQUESTS.name, "configure") is None
    known = await settings_of(cluster, REQUESTS.name)
    assert (known["retention.ms"], known["max.message.bytes"], known["segment.ms"]) == ("-1", "1048588", "7200000")
    assert [(change.topic, change.action) for change in await topics.plan(cluster)] == [(MODELS.name, "note")]
    await admin.delete_topics([MODELS.name])
    await until(lambda: apply_mends(cluster))
    await admin.close()


async def apply_mends(cluster: Cluster) -> bool:
    """A topic that is being deleted cannot be made again at once."""
    await topics.apply(cluster)
    return await topics.plan(cluster) == []
