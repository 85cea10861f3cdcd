"""Commits offsets to Kafka for lag tools; the consumer never reads them, and commits only those that have changed.

A commit that Kafka refuses costs the membership: aiokafka joins again, and the whole group rebalances. So none is sent while
the group rebalances, and none by a process that slept so long that its membership may have expired.
"""

import asyncio
from collections.abc import Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from services.chassis.kernel.records import Partition
from services.chassis.process.logging import get_logger
from services.chassis.process.transient import described

_log = get_logger(__name__)
_COMMIT_SECONDS = 5.0


class Offsets:
    """The offsets that one consumer has committed since its partitions were assigned."""

    def __init__(self) -> None:
        self._committed: dict[Partition, int] = {}
        self._under_way: asyncio.Task[None] | None = None
        self._failing = False

    async def commit(self, consumer: AIOKafkaConsumer, offsets: Mapping[Partition, int]) -> None:
        """Commit those of `offsets` that have changed. A failure is logged once; the next call retries."""
        changed = {p: offset for p, offset in offsets.items() if self._committed.get(p) != offset}
        if not changed:
            return
        wanted = {TopicPartition(*partition): offset for partition, offset in changed.items()}
        self._under_way = asyncio.ensure_future(consumer.commit(wanted))
        try:
            done, _ = await asyncio.wait([self._under_way], timeout=_COMMIT_SECONDS)
            if not done:
                raise TimeoutError(f"Kafka did not answer within {_COMMIT_SECONDS:g} s")
            if not self._under_way.cancelled():
                self._under_way.result()
                self._committed |= changed
            self._failing = False
        except (TimeoutError, KafkaError, IllegalStateError, OSError) as error:
            if not self._failing:
                _log.warning("offsets could not be committed; the database has the positions", error=described(error))
            self._failing = True
        finally:
            self._under_way.cancel()
            self._under_way = None

    def forget(self) -> None:
        """Drop the offsets of a past assignment and cancel a commit under way."""
        self._committed = {}
        if self._under_way is not None:
            self._under_way.cancel()
