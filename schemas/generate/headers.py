"""Describes the meaning of each CloudEvents attribute, for AsyncAPI and the contract's page."""

from dataclasses import dataclass

from schemas.envelope import SEQUENCE_DIGITS
from schemas.ids import TRACEPARENT_PATTERN


@dataclass(frozen=True)
class Header:
    """One header of a record in binary mode; in structured mode the member of the object has its name without `ce_`."""

    name: str
    needed: bool
    """Whether a record without it is a dead letter."""
    sent: str
    """When NeuroWeaver's services send it."""
    meaning: str
    pattern: str | None = None


HEADERS = (
    Header("ce_specversion", True, "always", "Version of CloudEvents: `1.0`.", r"^1\.0$"),
    Header("ce_id", True, "always", "Id of the event; NeuroWeaver's own are UUIDv7, sortable by time. The same event sent "
        "again, with the same id, type and content, is skipped; the same id with another type or content is another "
        "event."),
    Header("ce_source", True, "always", "Who sends it: `neuroweaver/<service>`, `neuroweaver/edge` for HTTP, or your "
        "product."),
    Header("ce_type", True, "always", "`neuroweaver.` and the name of the event."),
    Header("ce_time", False, "always", "When it happened, RFC 3339 with zone. If it is absent or cannot be stored, the "
        "record's time in the log is used."),
    Header("ce_subject", False, "always", "The subject of the event: the job's id, `job/step/attempt`, or the model's "
        "name."),
    Header("ce_dataschema", False, "always", "URN of the data's JSON Schema: `urn:neuroweaver:<event>:<version>`."),
    Header("ce_correlationid", False, "always", "Id of the job that the event belongs to. If the data has a `job_id`, "
        "that one is used."),
    Header("ce_causationid", False, "where there is a cause", "`ce_id` of the event that caused this one."),
    Header(
        "ce_traceparent", False, "always", "W3C trace context; every event that is caused by another stays in its "
            "trace.", TRACEPARENT_PATTERN
    ),
    Header(
        "ce_sequence", False, "for decisions",
        "Number of the decision within its `ce_source` and `ce_subject`, from 1, zero-padded. Ignored on requests.",
        rf"^[0-9]{{{SEQUENCE_DIGITS}}}$",
    ),
    Header("content-type", False, "always", "`application/json`. Required for structured mode: "
        "`application/cloudevents+json`."),
)  # fmt: skip

DEAD_LETTER_HEADERS = (
    ("dlq_error", "Why the record could not be read, or its handling failed."),
    ("dlq_topic", "Topic from which the record was read."),
    ("dlq_partition", "Partition from which it was read."),
    ("dlq_offset", "Offset of the record in that partition."),
    ("dlq_attempts", "How often the service tried to handle it."),
    ("dlq_appended_at", "Time of the record in the log, set by the broker or by its sender (RFC 3339)."),
)
"""Added to the record's own headers, key and value."""
