"""Tells whether the records of a bundle are the whole chain from JobRequested to ModelRegistered, by causes and sequence numbers."""

from collections.abc import Sequence
from typing import NamedTuple

from aiokafka import ConsumerRecord

from schemas.envelope import Event, UnknownVersion, Unreadable
from schemas.topics import EVENT_TYPES
from services.audit.bundle.record_lines import ProvenRecord
from services.audit.leaf import RawRecord
from services.audit.tracing import Located, trace
from services.chassis.kernel.records import appended_at, event_in, record_id_of


class Chain(NamedTuple):
    """The events of a job that made a version."""

    events: int
    missing: Sequence[str]
    """The events that are missing, in words."""


def chain_of(records: Sequence[ProvenRecord], job_id: str, version: str) -> Chain:
    """Return the chain of `version`, `name@number`, among the records of its job."""
    events = [item for one in records if (item := _located(one.record)) is not None]
    return Chain(len(events), trace(job_id, events, version).missing)


def _located(stored: RawRecord) -> Located | None:
    topic, partition, offset, timestamp, key, value, headers = stored
    sizes = len(key or b""), len(value or b"")
    record = ConsumerRecord(topic, partition, offset, timestamp, 0, key, value, None, *sizes, headers)
    try:
        event = event_in(record, EVENT_TYPES)
    except (Unreadable, UnknownVersion):
        return None
    return Located(event, record_id_of(record), appended_at(record)) if isinstance(event, Event) else None
