"""A cluster and its topics say who they are, in every version of the request that we speak."""

import asyncio
from collections.abc import Callable

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.topics import JOBS, REQUESTS
from services.chassis.kafka import metadata
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.metadata import ask, ask_once
from tests.toy import until


async def test_a_topic_has_an_id_that_another_topic_of_the_same_name_does_not_have(
    kafka: str, unique: Callable[[str], str]
) -> None:
    name = unique("again")

    async def exists() -> bool:
        return name in (await ask_once(Cluster(kafka), [name])).topics

    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 3, 1)])
        await until(exists)
        first = await ask_once(Cluster(kafka), [name, JOBS.name, "neuroweaver.never-made"])
        assert first == await ask_once(Cluster(kafka), [name, JOBS.name, "neuroweaver.never-made"])
        assert first.topics.keys() == {name, JOBS.name}
        assert (first.topics[name].partitions, first.topics[name].replicas) == (frozenset({0, 1, 2}), 1)
        await admin.delete_topics([name])
        while await exists():
            await asyncio.sleep(0.05)
        await admin.create_topics([NewTopic(name, 3, 1)])
        await until(exists)
        second = await ask_once(Cluster(kafka), [name, JOBS.name])
    finally:
        await admin.close()
    assert second.cluster_id == first.cluster_id
    assert second.topics[JOBS.name] == first.topics[JOBS.name]
    assert second.topics[name].topic_id != first.topics[name].topic_id


@pytest.mark.parametrize(
    "version", [metadata._MetadataRequestV10, metadata._MetadataRequestV11, metadata._MetadataRequestV12]
)
async def test_every_version_of_the_request_says_the_same(
    kafka: str, version: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = await ask_once(Cluster(kafka), [REQUESTS.name])
    monkeypatch.setattr(metadata._MetadataRequest, "_CLASSES", (version,))
    assert await ask_once(Cluster(kafka), [REQUESTS.name]) == usual


async def test_a_broker_that_does_not_tell_topic_ids_is_not_believed(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        node = admin._client.get_random_node()
        await admin._client.ready(node)
        connection = await admin._client._get_conn(node)
        monkeypatch.setitem(connection._versions, 3, (0, 9))
        with pytest.raises(metadata.NoIdentity, match=r"topic ids.*2\.8"):
            await ask(admin._client, [REQUESTS.name])
    finally:
        await admin.close()
