"""Decides whether a partition may be read from its position: only in the log in which the position was taken, and without a gap.

It is pure: the stored identity, the cluster's answer and the partitions' first and end offsets are passed in. It fails closed: a
log that cannot be identified is not read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from services.chassis.kafka.metadata import FoundLog
from services.chassis.kernel.records import Partition

Cause = Literal["record", "gap", "removed", "another log", "beyond the end", "gone", "unknown"]
"""Why a partition is stopped.

record: the handling of one record fails. gap: an own event came back whose predecessors the database has not seen. removed:
unread records were removed from the log. another log: the topic, or the whole cluster, is not the one that was read. beyond the
end: the log ends below the position. gone: there is no such partition. unknown: the cluster does not say which log it is.
"""


@dataclass(frozen=True, slots=True)
class KeptLog:
    """The identity of a topic's log as stored when it was first read."""

    cluster_id: str
    topic_id: str


@dataclass(frozen=True, slots=True)
class Span:
    """The readable offsets of a partition."""

    begin: int
    end: int
    """First offset that cannot be read yet: the end of the partition, or the start of an open transaction."""


@dataclass(frozen=True, slots=True)
class PartitionStop:
    """Why and where a partition is stopped."""

    cause: Cause
    offset: int
    """The position at which it is stopped."""
    next_offset: int | None
    """The first readable offset after the removed records; None for a cause without such a range."""
    reason: str
    """Partition and offset, what was found, and the remedy."""


def another_log(topic: str, kept: KeptLog | None, found: FoundLog) -> tuple[Cause, str] | None:
    """Return why `topic` is not the log that was read before; None where it is, or where none was read before."""
    now = found.topics.get(topic)
    if kept is not None and found.cluster_id != kept.cluster_id:
        return "another log", (
            f"{topic} is in another log: cluster {kept.cluster_id} was read and this is cluster {found.cluster_id}; point "
            "NEUROWEAVER_KAFKA_BOOTSTRAP at the cluster that was read"
        )
    if now is None:
        return "gone", f"{topic} does not exist any more"
    if kept is not None and now.topic_id != kept.topic_id:
        return "another log", (
            f"{topic} is another log: topic id {kept.topic_id} was read and this is {now.topic_id}, so it was deleted and "
            "created again; records of the first one that were not read are lost"
        )
    return None


def stop_of(
    service: str, partition: Partition, position: int, kept: KeptLog | None, found: FoundLog, span: Span | None
) -> PartitionStop | None:
    """Return why the partition must not be read from `position`; None where it may.

    `span` is None where it is not known; then only the identity of the log is compared.
    """
    topic, number = partition
    name = f"{topic}:{number}"
    accept = f"`neuroweaver partitions step-over {service} {name} --reason ...`"
    if differs := another_log(topic, kept, found):
        cause, reason = differs
        whole = f"`neuroweaver partitions step-over {service} {topic}:0 --reason ...`"  # one word for all its partitions
        remedy = f"or accept this one from its beginning with {whole}" if cause == "another log" else "bring it back"
        return PartitionStop(cause, position, None, f"{reason}; {remedy}")
    now = found.topics[topic]
    if number not in now.partitions:
        return PartitionStop(
            "gone", position, None,
            f"{name} is read up to offset {position} and does not exist: {topic} has partitions 0 to {len(now.partitions) - 1}; "
            f"this is not the log that was read, point the service at its own, or accept it with {accept}",
        )  # fmt: skip
    if span is None:
        return None
    if position > span.end:
        return PartitionStop(
            "beyond the end", position, None,
            f"{name} is read up to offset {position} but ends at {span.end}: this is another log, or it lost its end; restore it, "
            f"or accept that it continues from offset {span.end} with {accept}",
        )  # fmt: skip
    if position < span.begin:
        return PartitionStop(
            "removed", position, span.begin,
            f"{name}: offsets {position} to {span.begin - 1} were removed from the log before they were read, by retention or "
            f"delete-records; restore the topic, or acknowledge that they are lost with {accept}",
        )  # fmt: skip
    return None


def unknown(position: int, why: str) -> PartitionStop:
    """Return the stop of a partition whose log cannot be identified."""
    return PartitionStop("unknown", position, None, f"the identity of the log is unknown, so it is not read: {why}")


def stops_of(
    service: str,
    positions: Mapping[Partition, int],
    kept: Mapping[str, KeptLog],
    found: FoundLog,
    spans: Mapping[Partition, Span],
) -> dict[Partition, PartitionStop]:
    """Return the stops of those `positions` that must not be read, in order."""
    examined = {
        partition: stop_of(service, partition, position, kept.get(partition[0]), found, spans.get(partition))
        for partition, position in sorted(positions.items())
    }
    return {partition: why for partition, why in examined.items() if why is not None}
