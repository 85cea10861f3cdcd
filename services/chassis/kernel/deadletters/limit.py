"""A consumer whose partition fails by and large stops, rather than turn a whole topic into dead letters after a bad release.

Counted are records that failed or could not be read and are still open: what was retried or discarded counts no more, so
that the partition goes on by itself when its dead letters are dealt with. On topics that outsiders write to, what cannot
be read does not count: a stranger's garbage must not stop a service.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.steps import SERVICES
from schemas.topics import CATALOGUE
from services.chassis.kernel.records import Partition

WINDOW = 100
"""Offsets that are looked back at."""

_RECENT = text(
    """SELECT "offset" FROM dead_letter
       WHERE topic = :topic AND partition = :partition AND "offset" >= :first AND "offset" < :end
       AND (state = 'failed' OR state = 'unreadable' AND :unreadable)"""
)


class LimitReached(Exception):
    """Too many records of a partition fail: it stops until they are dealt with."""


@dataclass(frozen=True)
class DeadLetterLimit:
    """How much of a partition may fail."""

    run: int = 10
    """So many records in a row stop it."""
    share: float = 0.2
    """This share of the last hundred stops it."""

    def reached(self, partition: Partition, failed: Sequence[int], offset: int) -> LimitReached | None:
        """Whether another failure at `offset` is one too many. `failed`: offsets of earlier ones in the window before it."""
        recent = {earlier for earlier in failed if offset - WINDOW < earlier < offset}
        reason = None
        if all(earlier in recent for earlier in range(offset - self.run + 1, offset)):
            reason = f"{self.run} records in a row fail"
        elif len(recent) + 1 >= self.share * WINDOW:
            reason = f"{len(recent) + 1} of the last {WINDOW} records fail"
        if reason is None:
            return None
        topic, number = partition
        return LimitReached(
            f"{topic}:{number} stops at offset {offset}: {reason}, so the fault is ours rather than theirs; install a version "
            "that handles them, or see `neuroweaver dlq list` and retry or discard what lies there"
        )


async def look(
    connection: AsyncConnection,
    limit: DeadLetterLimit,
    partition: Partition,
    failing: Sequence[int],
    *,
    unreadable: bool = False,
) -> tuple[int, LimitReached] | None:
    """The first of the offsets `failing`, in order, that is one too many.

    `unreadable`: they cannot be read, rather than handled; that counts only where no outsider writes.
    """
    ours = partition[0] in _OURS
    if not failing or (unreadable and not ours):
        return None
    first, end = failing[0] - WINDOW, failing[-1]
    values = {"topic": partition[0], "partition": partition[1], "first": first, "end": end, "unreadable": ours}
    known = [offset for (offset,) in await connection.execute(_RECENT, values)]
    for offset in failing:
        if reached := limit.reached(partition, known, offset):
            return offset, reached
        known.append(offset)
    return None


_OURS = {topic.name for topic in CATALOGUE if set(topic.writers) <= set(SERVICES)}
