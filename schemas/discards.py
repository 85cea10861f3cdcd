"""Why: that a record was given up is a fact like any other: whoever folds the log again must leave it out too."""

from pydantic import AwareDatetime, Field

from schemas.base import EventData


class RecordDiscarded(EventData):
    """An operator gave up a record that a service could not handle; every later replay of that service leaves it out."""

    service: str = Field(description="The service that leaves it out, and the record's key.")
    topic: str = Field(description="Topic on which the discarded record lies.")
    partition: int = Field(ge=0, description="Partition on which it lies.")
    offset: int = Field(ge=0, description="Offset at which it lies.")
    appended_at: AwareDatetime = Field(description="Time of the discarded record in the log.")
    event_type: str | None = Field(default=None, description="Type of the event in it; null where it could not be read.")
    event_id: str | None = Field(default=None, description="Id of the event in it; null where it could not be read.")
    error: str = Field(description="Why it could not be handled.")
    reason: str = Field(min_length=1, max_length=2000, description="Why it was given up, in the operator's words.")
    discarded_by: str = Field(min_length=1, max_length=256, description="Who gave it up.")
