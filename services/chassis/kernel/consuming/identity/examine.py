"""Whether a partition may be read on from its position: only in the log that the position was taken in, and without a gap.

Pure: what is kept, what the cluster says now and where partitions begin and end come in. Doubt stands still: a log of which it
is not known whether it is the same is not read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from services.chassis.kafka.metadata import FoundLog
from services.chassis.kernel.records import Partition

Cause = Literal["record", "gap", "removed", "another log", "beyond the end", "gone", "unknown"]
"""Why a partition stands.

record: the handling of one record stops it. gap: an own event came back whose predecessors the database has not seen. removed:
unread records were removed from the log. another log: the topic, or the whole cluster, is not the one that was read. beyond the
end: the log ends below the position. gone: there is no such partition. unknown: the cluster does not say which log it is.
"""


@dataclass(frozen=True, slots=True)
class KeptLog:
    """What a position's log said of itself when it was first read."""

    cluster_id: str
    topic_id: str


@dataclass(frozen=True, slots=True)
class Span:
    """What a partition holds now."""

    begin: int
    end: int
    """First offset that nobody may read yet: its end, or where a transaction is open."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A partition that is not read on."""

    cause: Cause
    offset: int
    """The position at which it stands."""
    next_offset: int | None
    """The first offset that can be read behind what it stands at; None where that is no stretch of its log."""
    reason: str
    """Place, what was found, and the remedy."""


def another_log(topic: str, kept: KeptLog | None, found: FoundLog) -> tuple[Cause, str] | None:
    """Why `topic` is not the one that was read; None where it is, or where none was read before."""
    now = found.topics.get(topic)
    if kept is not None and found.cluster_id != kept.cluster_id:
        return "another log", (
            f"{topic} lies in another log: cluster {kept.cluster_id} was read and this is cluster {found.cluster_id}; "
            "point NEUROWEAVER_KAFKA_BOOTSTRAP at the cluster that was read"
        )
    if now is None:
        return "gone", f"{topic} does not exist any more"
    if kept is not None and now.topic_id != kept.topic_id:
        return "another log", (
            f"{topic} is another log: topic id {kept.topic_id} was read and this is {now.topic_id}, so it was deleted and made again; "
            "what was not read of the first is lost with it"
        )
    return None


def standing(
    service: str, partition: Partition, position: int, kept: KeptLog | None, found: FoundLog, span: Span | None
) -> Standing | None:
    """Why the partition may not be read on from `position`; None where it may.

    `span` is None where it is not known; only what the cluster says of itself is compared then.
    """
    topic, number = partition
    place = f"{topic}:{number}"
    accept = f"`neuroweaver partitions step-over {service} {place} --reason ...`"
    if differs := another_log(topic, kept, found):
        cause, reason = differs
        whole = f"`neuroweaver partitions step-over {service} {topic}:0 --reason ...`"  # one word for all its partitions
        remedy = f"or accept this one from its beginning with {whole}" if cause == "another log" else "bring it back"
        return Standing(cause, position, None, f"{reason}; {remedy}")
    now = found.topics[topic]
    if number not in now.partitions:
        return Standing(
            "gone", position, None,
            f"{place} is read up to offset {position} and does not exist: {topic} has partitions 0 to {len(now.partitions) - 1}; "
            f"this is not the log that was read, point the service at its own, or accept it with {accept}",
        )  # fmt: skip
    if span is None:
        return None
    if position > span.end:
        return Standing(
            "beyond the end", position, None,
            f"{place} is read up to offset {position} but ends at {span.end}: this is another log, or it lost its end; restore it, "
            f"or accept that it goes on from offset {span.end} with {accept}",
        )  # fmt: skip
    if position < span.begin:
        return Standing(
            "removed", position, span.begin,
            f"{place}: offsets {position} to {span.begin - 1} were removed from the log before they were read, by retention or "
            f"delete-records; restore the topic, or acknowledge that they are lost with {accept}",
        )  # fmt: skip
    return None


def unknown(position: int, why: str) -> Standing:
    """It is not known which log this is."""
    return Standing("unknown", position, None, f"it is not known which log this is, so it is not read: {why}")


def all_standing(
    service: str,
    positions: Mapping[Partition, int],
    kept: Mapping[str, KeptLog],
    found: FoundLog,
    spans: Mapping[Partition, Span],
) -> dict[Partition, Standing]:
    """Those of `positions` that may not be read on, in order."""
    examined = {
        partition: standing(service, partition, position, kept.get(partition[0]), found, spans.get(partition))
        for partition, position in sorted(positions.items())
    }
    return {partition: why for partition, why in examined.items() if why is not None}
