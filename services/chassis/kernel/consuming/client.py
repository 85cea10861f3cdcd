"""Extends aiokafka's consumer with what a service's consumer needs; `subscription` makes FastStream build this class."""

import math
import time
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from services.chassis.kafka.fetch_connections import fetch_apart
from services.chassis.kafka.pacing import pace
from services.chassis.kernel.consuming.holding import Holding, Taken
from services.chassis.kernel.consuming.prefetch import Prefetch
from services.chassis.kernel.records import Record

_LISTEN_SECONDS = 0.2
"""Shortest duration of an empty poll: FastStream sleeps after each empty poll and receives nothing meanwhile."""
_POLL_RECORDS = 500


class Client(AIOKafkaConsumer):  # type: ignore[misc]
    """aiokafka's consumer, which reports a failed poll, reconnects to an absent broker at a slow pace, sends other requests on a
    connection apart from its fetches, takes records while a poll is handled (`prefetch`), and collects own events into larger
    batches (`holding`).

    aiokafka takes the records of one partition after the other and advances its positions; when one raises, the records taken before
    are lost, so `lost` is called.
    """

    def __init__(self, source: str, lost: Callable[[], None], *topics: str, **options: Any) -> None:
        super().__init__(*topics, **options)
        pace(self._client)
        fetch_apart(self._client)
        self._lost = lost
        self._prefetch = Prefetch(self._take)
        self._holding = Holding(source)
        self._taken_of: Any = None
        """The assignment under which records were taken and are held."""
        self._failed: Exception | None = None
        """The error of a poll that failed while records were held: they are returned first, and the next poll raises it. Otherwise
        partitions with held records would wait for as long as another partition cannot be read."""

    async def getmany(
        self, *, timeout_ms: float = 0, max_records: int = _POLL_RECORDS
    ) -> dict[TopicPartition, list[Record]]:
        """Like aiokafka's, without the records still held; it waits longer, since FastStream sleeps after an empty poll."""
        until = time.monotonic() + max(timeout_ms / 1000, _LISTEN_SECONDS)
        try:
            if failed := self._failed:
                self._failed = None
                raise failed
            while True:
                due = self._holding.until
                wait = max(0.0, min(until, until if due is None else due) - time.monotonic())
                try:
                    taken = await self._prefetch.take(wait, max_records - self._holding.count)
                except Exception as error:
                    if not (found := self._hand_over({}, math.inf, max_records)):
                        raise
                    self._failed = error
                    self._forget_the_poll()
                    return found
                now = time.monotonic()
                if (found := self._hand_over(taken, now, max_records)) or now >= until:
                    return found
        except BaseException:
            self._prefetch.cancel()
            self._drop_all()
            self._lost()
            self._forget_the_poll()
            raise

    async def stop(self) -> None:
        """Like aiokafka's; no records are taken any more."""
        await self._prefetch.stop()
        await super().stop()

    async def _take(self, seconds: float, most: int) -> Taken:
        try:
            taken: Taken = await super().getmany(timeout_ms=seconds * 1000, max_records=most)
        except Exception:
            self._forget_the_poll()
            raise
        if taken and (assignment := self._subscription.subscription.assignment) is not self._taken_of:
            self._drop_all()
            self._taken_of = assignment
        return taken

    def _drop_all(self) -> None:
        self._prefetch.drop_all()
        self._holding.drop_all()

    def _forget_the_poll(self) -> None:
        """Reset the client's poll state; otherwise aiokafka assumes for ever that a poll runs, and never leaves the group."""
        self._subscription._fetch_count = 0
        self._subscription._last_fetch_ended = time.monotonic()

    def _hand_over(self, taken: Taken, now: float, most: int) -> dict[TopicPartition, list[Record]]:
        if self._taken_of is not None and not self._taken_of.active:
            self._drop_all()
            taken = {}
        return self._holding.hand_over(taken, self.last_stable_offset, now, most)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Like aiokafka's; drops the records taken of the partition."""
        self._drop(partition)
        super().seek(partition, offset)

    def pause(self, *partitions: TopicPartition) -> None:
        """Like aiokafka's; drops the records taken of these partitions, which are read again after the next seek."""
        for partition in partitions:
            self._drop(partition)
        super().pause(*partitions)

    def _drop(self, partition: TopicPartition) -> None:
        self._prefetch.drop(partition)
        self._holding.drop(partition)

    async def position(self, partition: TopicPartition) -> int:
        """Return the first offset that was not returned by a poll."""
        for waiting in (self._holding, self._prefetch):
            if (first := waiting.first(partition)) is not None:
                return first
        offset: int = await super().position(partition)
        return offset
