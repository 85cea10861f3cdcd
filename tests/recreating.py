"""What operators do to topics: delete and make them again, or remove their first records."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from schemas.topics import Topic
from services.chassis.kafka.catalogue import configuration
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.metadata import ask_once
from services.chassis.kernel.records import Partition
from tests.toy import until


@asynccontextmanager
async def admin_of(cluster: Cluster) -> AsyncIterator[AIOKafkaAdminClient]:
    """Open an admin client during the block."""
    admin = AIOKafkaAdminClient(**cluster.connection())
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def recreate(cluster: Cluster, topic: Topic) -> None:
    """Delete the topic and create it again as in the catalogue."""
    before = (await ask_once(cluster, [topic.name])).topics[topic.name]

    async def is_another() -> bool:
        found = (await ask_once(cluster, [topic.name])).topics.get(topic.name)
        if found is None:
            new = NewTopic(topic.name, topic.partitions, 1, topic_configs=dict(configuration(topic)))
            await admin.create_topics([new])
        return found is not None and found.topic_id != before.topic_id

    async with admin_of(cluster) as admin:
        await admin.delete_topics([topic.name])
        await until(is_another)


async def remove_below(cluster: Cluster, partition: Partition, offset: int) -> None:
    """Remove records like `kafka-delete-records`."""
    async with admin_of(cluster) as admin:
        await admin.delete_records({TopicPartition(*partition): RecordsToDelete(before_offset=offset)})
