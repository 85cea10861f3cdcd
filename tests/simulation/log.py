"""The log in memory: topics and partitions as the catalogue has them, records as they lie in Kafka, in the real wire format."""

import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import cache

from aiokafka.partitioner import DefaultPartitioner

from schemas.envelope import Event, encode
from schemas.topics import DISCARDS, JOBS, MODELS, REQUESTS, TOPIC_OF, aggregate_key
from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.metadata import FoundLog, FoundTopic
from services.chassis.kernel.log import Range
from services.chassis.kernel.records import Partition, RecordId
from tests.log import HeldRecord
from tests.simulation.clock import Clock

TOPICS = (REQUESTS, JOBS, MODELS)
"""The topics from which projections are folded."""
LOGGED = (*TOPICS, DISCARDS)


@cache
def partition_of(key: bytes, count: int) -> int:
    """Return the partition, of `count`, to which Kafka's producers send the key."""
    number: int = DefaultPartitioner()(key, range(count), ())
    return number


class MemoryLog:
    """Records per partition, which are kept for ever."""

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        self._clock, self._chance = clock, chance
        self.partitions: dict[Partition, list[HeldRecord]] = {
            (topic.name, number): [] for topic in LOGGED for number in range(topic.partitions)
        }
        self.lying: dict[int, RecordId] = {}
        """The positions of events that are being handled, by object identity."""

    def append(self, partition: Partition, key: bytes, value: bytes, headers: Iterable[tuple[str, bytes]]) -> None:
        """Add a record."""
        records = self.partitions[partition]
        at = int(self._clock.now.timestamp() * 1000)
        records.append(HeldRecord(*partition, len(records), at, key, value, tuple(headers)))

    def publish(self, event: Event, *, anywhere: bool = False) -> None:
        """Add an event to the partition of its key, or to that of a client with another partitioner."""
        value, headers = encode(event)
        topic, key = TOPIC_OF[event.type].name, aggregate_key(event.data).encode()
        count = self.count(topic)
        number = self._chance.randrange(count) if anywhere else partition_of(key, count)
        self.append((topic, number), key, value, headers)

    def count(self, topic: str) -> int:
        """Return the number of partitions of a topic."""
        return sum(name == topic for name, _ in self.partitions)

    def add_partitions(self, topic: str, number: int) -> None:
        """Raise the number of partitions of a topic."""
        count = self.count(topic)
        self.partitions |= {(topic, count + more): [] for more in range(number)}

    async def which(self, _consumer: object, topics: Iterable[str]) -> FoundLog:
        """Return the log's identity, like `services.chassis.kernel.consuming.seeking.which_log`; it is always the same."""
        numbers = {topic: frozenset(number for name, number in self.partitions if name == topic) for topic in topics}
        return FoundLog("memory", {topic: FoundTopic(topic, found, 1, 1) for topic, found in numbers.items()})

    async def bounds(self, _cluster: Cluster, topics: Iterable[str]) -> dict[Partition, Range]:
        """Return the bounds, like `services.chassis.kernel.log.bounds`."""
        return {partition: (0, end) for partition, end in self.ends(topics).items()}

    async def asked(self, _cluster: Cluster, topics: Iterable[str]) -> FoundLog:
        """Return the metadata, like `services.chassis.kafka.metadata.ask_once`."""
        return await self.which(None, topics)

    def garbage(self, topic: str, key: bytes) -> None:
        """Add an unreadable record."""
        self.append((topic, self._chance.randrange(self.count(topic))), key, b"\xff no JSON", ())

    def ends(self, topics: Iterable[str]) -> dict[Partition, int]:
        """Return the offset after the last record, per partition of `topics`."""
        wanted = set(topics)
        return {partition: len(records) for partition, records in self.partitions.items() if partition[0] in wanted}

    @asynccontextmanager
    async def read(
        self, _cluster: Cluster, ranges: Mapping[Partition, Range]
    ) -> AsyncIterator[AsyncIterator[list[HeldRecord]]]:
        """Read the log, like `services.chassis.kernel.log.read`: in order per partition, with random interleaving of
        partitions."""
        async with aclosing(self._chunks(ranges)) as chunks:
            yield chunks

    async def _chunks(self, ranges: Mapping[Partition, Range]) -> AsyncGenerator[list[HeldRecord], None]:
        left = {partition: list(span) for partition, span in ranges.items() if span[0] < span[1]}
        while left:
            chunk: list[HeldRecord] = []
            for _ in range(self._chance.randint(1, 12)):
                if left:
                    partition = self._chance.choice(list(left))
                    first, end = left[partition]
                    upto = min(end, first + self._chance.randint(1, 8))
                    chunk += self.partitions[partition][first:upto]
                    left[partition][0] = upto
                    if upto == end:
                        del left[partition]
            yield chunk
