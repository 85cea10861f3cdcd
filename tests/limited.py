"""Topics whose configuration a test changes, for a block."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.topics import CATALOGUE
from services.chassis.kafka.catalogue import configuration
from services.chassis.kafka.cluster import Cluster


@asynccontextmanager
async def limited(cluster: Cluster, topic: str, size: int) -> AsyncIterator[None]:
    """Limit the topic's batches to this size during the block."""
    known = {found.name: configuration(found) for found in CATALOGUE}.get(topic, {})

    async def alter(values: dict[str, str]) -> None:
        admin = AIOKafkaAdminClient(**cluster.connection())
        await admin.start()
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, values)])
        await admin.close()

    await alter({**known, "max.message.bytes": str(size)})
    try:
        yield
    finally:
        await alter(dict(known))
