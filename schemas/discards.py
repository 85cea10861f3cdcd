"""Defines the events by which an operator gives up or accepts parts of the log; every replay must honour them."""

from pydantic import Field

from schemas.base import EventData, Frozen, Moment


class RecordDiscarded(EventData):
    """An operator discarded a record that a service could not handle; every later replay of that service skips it."""

    service: str = Field(description="The service that skips it; also the record's key.")
    topic: str = Field(description="Topic of the discarded record.")
    partition: int = Field(ge=0, description="Its partition.")
    offset: int = Field(ge=0, description="Its offset.")
    appended_at: Moment = Field(description="Time at which the record was appended to the log.")
    event_type: str | None = Field(default=None, description="Type of its event; null if it could not be read.")
    event_id: str | None = Field(default=None, description="Id of its event; null if it could not be read.")
    error: str = Field(description="Why it could not be handled.")
    reason: str = Field(min_length=1, max_length=2000, description="Why the operator discarded it.")
    discarded_by: str = Field(min_length=1, max_length=256, description="Who discarded it.")


class RecordsSkipped(EventData):
    """An operator let a service skip a range of offsets that was removed from the log before the service had read it."""

    service: str = Field(description="The service that skips it; also the record's key.")
    topic: str = Field(description="Topic of the range.")
    partition: int = Field(ge=0, description="Partition of the range.")
    first_offset: int = Field(ge=0, description="First offset of the range.")
    next_offset: int = Field(ge=1, description="First offset after the range, from which the service continues.")
    error: str = Field(description="The fault as the service reported it.")
    reason: str = Field(min_length=1, max_length=2000, description="Why the operator skipped it.")
    skipped_by: str = Field(min_length=1, max_length=256, description="Who skipped it.")


class MovedPosition(Frozen):
    """The position of a service in one partition of a log that an operator accepted."""

    partition: int = Field(ge=0, description="The partition.")
    before: int = Field(ge=0, description="First offset of the previous log that was not read.")
    now: int | None = Field(description="Offset from which the service continues; null: the partition no longer exists.")


class LogAccepted(EventData):
    """An operator let a service read another topic of the same name; records of the previous one that it had not read are
    lost to it."""

    service: str = Field(description="The service that reads it; also the record's key.")
    topic: str = Field(description="The topic.")
    cluster_id: str = Field(description="Cluster of the accepted topic.")
    topic_id: str = Field(description="Id of the accepted topic.")
    previous_cluster_id: str | None = Field(default=None, description="Cluster of the topic that was read before.")
    previous_topic_id: str | None = Field(default=None, description="Id of the topic that was read before.")
    partitions: tuple[MovedPosition, ...] = Field(description="The old and the new position of each partition.")
    error: str = Field(description="The fault as the service reported it.")
    reason: str = Field(min_length=1, max_length=2000, description="Why the operator accepted it.")
    accepted_by: str = Field(min_length=1, max_length=256, description="Who accepted it.")
