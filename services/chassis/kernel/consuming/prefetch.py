"""Takes records from aiokafka's fetcher while the poll before them is handled, so that they are all there when it ends.

aiokafka asks a broker for nothing as long as fetched records of any of its partitions wait to be taken. Without this, only the first
fetch after a poll is answered while that poll is handled: the next poll gets the few records of this fetch, and all that came later
waits for both.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from services.chassis.kernel.consuming.holding import HELD_BYTES, Taken
from services.chassis.kernel.records import Record

_SECONDS = 1.0
"""How long records are taken after a poll; a handler that hangs must not look to the group like one that polls."""
_CHUNKS = 2


@dataclass
class Prefetch:
    """The records of one client that were taken from its fetcher and not returned yet."""

    poll: Callable[[float, int], Awaitable[Taken]]
    """Takes records from the fetcher: waits that many seconds for some, and returns that many at most."""
    _chunks: list[dict[TopicPartition, list[Record]]] = field(default_factory=list)
    """In order. A second one begins where the records of a partition do not follow on those of the first."""
    _task: asyncio.Task[None] | None = None
    _arrival: asyncio.Future[None] | None = None
    _failed: Exception | None = None
    """The error of the last poll; it is raised after the records that were taken before it are returned."""
    _until: float = 0.0

    async def take(self, seconds: float, most: int) -> Taken:
        """Remove and return the records taken so far, `most` at the most; it waits up to `seconds` for some. Raises the errors of `poll`."""
        self._until = time.monotonic() + seconds + _SECONDS
        if not self._chunks and self._failed is None:
            self._go_on(most)
            self._arrival = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._arrival], timeout=seconds)
        taken = self._first_of_all(most)
        if not taken and self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        self._go_on(most)
        return taken

    def first(self, partition: TopicPartition) -> int | None:
        """Return the lowest offset of a partition that is here; None where there is none."""
        return next((chunk[partition][0].offset for chunk in self._chunks if partition in chunk), None)

    def drop(self, partition: TopicPartition) -> None:
        """Drop the records of a partition that is read again."""
        for chunk in self._chunks:
            chunk.pop(partition, None)
        self._chunks = [chunk for chunk in self._chunks if chunk]

    def drop_all(self) -> None:
        """Drop all records, and an error: the partitions were revoked, or are all read again."""
        self._chunks, self._failed = [], None

    def cancel(self) -> asyncio.Task[None] | None:
        """Take nothing until the next `take`; returns the task that ends now."""
        ending, self._task = self._task, None
        if ending is not None:
            ending.cancel()
        return ending

    async def stop(self) -> None:
        """Take nothing any more."""
        if (ending := self.cancel()) is not None:
            with suppress(asyncio.CancelledError):
                await ending

    def _first_of_all(self, most: int) -> Taken:
        """Remove and return the first chunk, or `most` records of it if it is larger: it was filled for a poll that may return more."""
        taken: dict[TopicPartition, list[Record]] = {}
        chunk = self._chunks[0] if self._chunks else {}
        for partition, records in list(chunk.items()):
            taken[partition], rest = records[:most], records[most:]
            most -= len(taken[partition])
            if rest:
                chunk[partition] = rest
                break
            del chunk[partition]
            if not most:
                break
        self._chunks = [one for one in self._chunks if one]
        return taken

    def _go_on(self, most: int) -> None:
        if self._failed is None and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(most))

    async def _run(self, most: int) -> None:
        try:
            while (room := self._room(most)) > 0 and (seconds := self._until - time.monotonic()) > 0:
                if taken := await self.poll(seconds, room):
                    self._add(taken)
                    self._tell()
        except Exception as error:
            self._failed = error
        self._tell()

    def _room(self, most: int) -> int:
        held = [record for chunk in self._chunks for records in chunk.values() for record in records]
        full = len(self._chunks) == _CHUNKS or sum(len(record.value or b"") for record in held) >= HELD_BYTES
        return 0 if full else most - len(held)

    def _add(self, taken: Taken) -> None:
        last = self._chunks[-1] if self._chunks else {}
        if not last or any(last[p][-1].offset + 1 != records[0].offset for p, records in taken.items() if p in last):
            self._chunks.append({partition: list(records) for partition, records in taken.items()})
            return
        for partition, records in taken.items():
            last.setdefault(partition, []).extend(records)

    def _tell(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
