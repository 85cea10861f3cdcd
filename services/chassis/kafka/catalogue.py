"""Compares a cluster's topics with the catalogue, and classifies the differences. Pure.

Applying a change never loses a record: `topics apply` creates topics and corrects settings; a person decides on all else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from schemas.bounds import RECORD_BYTES
from schemas.topics import Topic
from services.chassis.kafka.metadata import FoundTopic

Action = Literal["create", "configure", "conflict", "note"]
"""create, configure: `topics apply` does it. conflict: a person must decide. note: it differs, but everything works."""

_BATCH_OVERHEAD = 12
_COPIES = 3


@dataclass(frozen=True, slots=True)
class TopicChange:
    """One difference between the cluster and the catalogue."""

    topic: str
    action: Action
    detail: str
    loses: bool = False
    """Whether records that must be kept for ever are lost, or may be, because of the difference."""


def configuration(topic: Topic) -> Mapping[str, str]:
    """The topic-level configuration that the catalogue asks for; a message may be larger.

    A record's time is the broker's: a sender with a wrong clock cannot move a fact into another moment of the audit.
    """
    wanted = {
        "cleanup.policy": topic.cleanup,
        "retention.ms": str(-1 if topic.retention_ms is None else topic.retention_ms),
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(RECORD_BYTES + _BATCH_OVERHEAD),
    }
    return wanted | ({"retention.bytes": "-1"} if topic.retention_ms is None else {})


def differences(topic: Topic, found: FoundTopic | None, known: Mapping[str, str], brokers: int) -> list[TopicChange]:
    """All differences; `known` are the settings in effect, `brokers` is the cluster's number of brokers."""
    wanted = configuration(topic)
    if found is None:
        settings = ", ".join(f"{name}={value}" for name, value in wanted.items())
        return [TopicChange(topic.name, "create", f"{topic.partitions} partitions, {settings}", loses=True)]
    changes = [*_partitions(topic, len(found.partitions)), *_copies(topic, found, known, brokers)]
    differing = {name: value for name, value in wanted.items() if not fits(name, known.get(name), value)}
    if differing:
        detail = ", ".join(f"{name}: {known.get(name)} → {value}" for name, value in differing.items())
        kept = topic.retention_ms is None
        loses = kept and bool(differing.keys() & {"cleanup.policy", "retention.ms", "retention.bytes"})
        changes.append(TopicChange(topic.name, "configure", detail, loses))
    return changes


def fits(name: str, known: str | None, wanted: str) -> bool:
    """Whether a setting is as required, or better."""
    if name == "max.message.bytes" and known is not None and known.isdecimal():
        return int(known) >= int(wanted)
    return known == wanted


def _partitions(topic: Topic, number: int) -> list[TopicChange]:
    if number < topic.partitions:
        detail = (
            f"has {number} partitions, the catalogue requires {topic.partitions}; more partitions would move keys: keep "
            "the number, or move to a new cluster"
        )
        return [TopicChange(topic.name, "conflict", detail)]
    if number > topic.partitions:
        detail = (
            f"has {number} partitions, the catalogue requires {topic.partitions}: keys have moved between partitions; "
            "services read all of them, and partitions cannot be removed"
        )
        return [TopicChange(topic.name, "note", detail)]
    return []


def _copies(topic: Topic, found: FoundTopic, known: Mapping[str, str], brokers: int) -> list[TopicChange]:
    least = int(known.get("min.insync.replicas", "1"))
    wanted = min(_COPIES, brokers)
    if found.replicas < least:
        detail = (
            f"has {found.replicas} copies and min.insync.replicas={least}: no event can be written; add copies with "
            "kafka-reassign-partitions, or lower min.insync.replicas"
        )
        return [TopicChange(topic.name, "conflict", detail)]
    if found.in_sync < least:
        detail = f"has {found.in_sync} copies in sync and needs {least} (min.insync.replicas): events wait until brokers are back"
        return [TopicChange(topic.name, "conflict", detail)]
    if found.replicas < wanted:
        detail = f"has {found.replicas} copies of {wanted} on {brokers} brokers: add some with kafka-reassign-partitions"
        return [TopicChange(topic.name, "note", detail)]
    if found.replicas >= _COPIES and least < _COPIES - 1:
        detail = (
            f"has min.insync.replicas={least} with {found.replicas} copies: an event that one broker alone has acknowledged is lost "
            f"with it; set {_COPIES - 1}"
        )
        return [TopicChange(topic.name, "note", detail)]
    return []
