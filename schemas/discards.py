"""Defines the events by which an operator gives up or accepts parts of the log; every replay must honour them."""

from pydantic import Field

from schemas.base import EventData, Frozen, Moment


class RecordDiscarded(EventData):
    """An operator gave up a record that a service could not handle; every later replay of that service leaves it out."""

    service: str = Field(description="The service that leaves it out, and the record's key.")
    topic: str = Field(description="Topic on which the discarded record lies.")
    partition: int = Field(ge=0, description="Partition on which it lies.")
    offset: int = Field(ge=0, description="Offset at which it lies.")
    appended_at: Moment = Field(description="Time of the discarded record in the log.")
    event_type: str | None = Field(default=None, description="Type of the event in it; null where it could not be read.")
    event_id: str | None = Field(default=None, description="Id of the event in it; null where it could not be read.")
    error: str = Field(description="Why it could not be handled.")
    reason: str = Field(min_length=1, max_length=2000, description="Why it was given up, in the operator's words.")
    discarded_by: str = Field(min_length=1, max_length=256, description="Who gave it up.")


class RecordsSkipped(EventData):
    """An operator let a service go on behind a stretch of the log that was removed before the service had read it."""

    service: str = Field(description="The service that goes on behind it, and the record's key.")
    topic: str = Field(description="Topic of the stretch.")
    partition: int = Field(ge=0, description="Partition of the stretch.")
    first_offset: int = Field(ge=0, description="First offset that was not read.")
    next_offset: int = Field(ge=1, description="First offset behind the stretch, from which the service goes on.")
    error: str = Field(description="What the service said of it.")
    reason: str = Field(min_length=1, max_length=2000, description="Why it goes on, in the operator's words.")
    skipped_by: str = Field(min_length=1, max_length=256, description="Who let it go on.")


class MovedPosition(Frozen):
    """Where a service goes on in one partition of a log that it accepted."""

    partition: int = Field(ge=0, description="The partition.")
    before: int = Field(ge=0, description="First offset that was not read of the log before.")
    now: int | None = Field(description="Offset from which it goes on; null: the partition does not exist any more.")


class LogAccepted(EventData):
    """An operator let a service read a topic that is not the one it had read; what it had not read of that one is lost to it."""

    service: str = Field(description="The service that reads it, and the record's key.")
    topic: str = Field(description="The topic.")
    cluster_id: str = Field(description="Cluster on which the accepted topic lies.")
    topic_id: str = Field(description="Id of the accepted topic.")
    previous_cluster_id: str | None = Field(default=None, description="Cluster of the topic that was read before.")
    previous_topic_id: str | None = Field(default=None, description="Id of the topic that was read before.")
    partitions: tuple[MovedPosition, ...] = Field(description="Where each partition of it stood, and where it goes on.")
    error: str = Field(description="What the service said of it.")
    reason: str = Field(min_length=1, max_length=2000, description="Why it is accepted, in the operator's words.")
    accepted_by: str = Field(min_length=1, max_length=256, description="Who accepted it.")
