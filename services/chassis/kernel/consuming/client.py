"""aiokafka's consumer with the manners that a service's consumer needs; FastStream is told to build it (`subscription`)."""

import math
import time
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from services.chassis.kafka.fetch_connections import fetch_apart
from services.chassis.kafka.pacing import pace
from services.chassis.kernel.consuming.holding import Holding, Taken
from services.chassis.kernel.records import Record

_LISTEN_SECONDS = 0.2
"""A poll lasts at least so long where nothing comes: FastStream pauses after each that brought nothing, and hears nothing meanwhile."""
_POLL_RECORDS = 500


class Client(AIOKafkaConsumer):  # type: ignore[misc]
    """aiokafka's consumer, which says when a poll fails, looks for a broker that is away at a walk, asks beside its fetches, and lets own
    events wait for each other (`holding`).

    It takes the records of one partition after the other and moves its positions; where one raises, what it took before is nobody's.
    """

    def __init__(self, source: str, lost: Callable[[], None], *topics: str, **options: Any) -> None:
        super().__init__(*topics, **options)
        pace(self._client)
        fetch_apart(self._client)
        self._lost = lost
        self._holding = Holding(source)
        self._held_of: Any = None
        """The assignment under which records are held."""
        self._failed: Exception | None = None
        """How a poll ended after records were held: they are handed over first, and the next poll raises it. Else partitions whose records
        can wait would stand for as long as another partition cannot be read."""

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: float = 0, max_records: int = _POLL_RECORDS
    ) -> dict[TopicPartition, list[Record]]:
        """As aiokafka's, of what is to be handled now; it listens longer, since FastStream pauses whenever nothing came."""
        until = time.monotonic() + max(timeout_ms / 1000, _LISTEN_SECONDS)
        try:
            if failed := self._failed:
                self._failed = None
                raise failed
            while True:
                due = self._holding.until
                wait = max(0.0, min(until, until if due is None else due) - time.monotonic())
                try:
                    taken = await super().getmany(
                        *partitions, timeout_ms=wait * 1000, max_records=max_records - self._holding.count
                    )
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
            self._holding.drop_all()
            self._lost()
            self._forget_the_poll()
            raise

    def _forget_the_poll(self) -> None:
        """Else the subscription believes for ever that somebody polls, and never leaves the group."""
        self._subscription._fetch_count = 0
        self._subscription._last_fetch_ended = time.monotonic()

    def _hand_over(self, taken: Taken, now: float, most: int) -> dict[TopicPartition, list[Record]]:
        if self._held_of is not None and not self._held_of.active:
            self._holding.drop_all()
        if taken:
            self._held_of = self._subscription.subscription.assignment
        return self._holding.hand_over(taken, self.last_stable_offset, now, most)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """As aiokafka's."""
        self._holding.drop(partition)
        super().seek(partition, offset)

    def pause(self, *partitions: TopicPartition) -> None:
        """As aiokafka's. What comes of these partitions before they are sought anew is of no use."""
        for partition in partitions:
            self._holding.drop(partition)
        super().pause(*partitions)

    async def position(self, partition: TopicPartition) -> int:
        """The first offset that was not handed over."""
        held = self._holding.first(partition)
        offset: int = await super().position(partition) if held is None else held
        return offset
