"""Limits the dead letters of a partition: beyond the limit it stops, so that a bad release does not dead-letter a whole topic.

Records that failed or were unreadable and are still open count; those that were retried or discarded do not, so the partition
continues by itself when its dead letters are handled. On topics that other programs may write to, unreadable records do not
count: their garbage must not stop a service.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.steps import SERVICES
from schemas.topics import CATALOGUE
from services.chassis.kernel.deadletters import statements
from services.chassis.kernel.records import Partition
from services.chassis.postgres.transactions import Session

WINDOW = 100
"""Number of offsets before a failure in which earlier failures count."""


class LimitReached(Exception):
    """Too many records of a partition fail: it stops until they are retried or discarded."""


@dataclass(frozen=True)
class DeadLetterLimit:
    """How many records of a partition may fail."""

    run: int = 10
    """This many failures in a row stop it."""
    share: float = 0.2
    """This share of failures among the last hundred records stops it."""

    def reached(self, partition: Partition, failed: Sequence[int], offset: int) -> LimitReached | None:
        """Return the error if a further failure at `offset` exceeds the limit.

        `failed`: offsets of earlier failures in the window before it.
        """
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
            f"{topic}:{number} stops at offset {offset}: {reason}, so the service is probably at fault; install a version "
            "that handles them, or see `neuroweaver dlq list` and retry or discard these records"
        )


async def look(
    connection: Session,
    limit: DeadLetterLimit,
    partition: Partition,
    failing: Sequence[int],
    *,
    unreadable: bool = False,
) -> tuple[int, LimitReached] | None:
    """Return the first of the offsets `failing`, in order, that exceeds the limit, with the error.

    `unreadable`: the records are unreadable, which counts only on topics that no other program may write to.
    """
    ours = partition[0] in _OURS
    if not failing or (unreadable and not ours):
        return None
    first, end = failing[0] - WINDOW, failing[-1]
    values = {"topic": partition[0], "partition": partition[1], "first": first, "end": end, "unreadable": ours}
    known = [offset for (offset,) in await connection.execute(statements.RECENT, values)]
    for offset in failing:
        if reached := limit.reached(partition, known, offset):
            return offset, reached
        known.append(offset)
    return None


_OURS = {topic.name for topic in CATALOGUE if set(topic.writers) <= set(SERVICES)}
