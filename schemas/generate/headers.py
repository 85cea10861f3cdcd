"""Describes the meaning of each CloudEvents attribute, for AsyncAPI and the contract's page."""

from dataclasses import dataclass

from schemas.envelope import SEQUENCE_DIGITS
from schemas.ids import TRACEPARENT_PATTERN


@dataclass(frozen=True)
class Header:
    """One header of a record in binary mode; in structured mode its name without `ce_` is the member of the object."""

    name: str
    needed: bool
    """Whether a record without it is a dead letter."""
    sent: str
    """When our services send it."""
    meaning: str
    pattern: str | None = None


HEADERS = (
    Header("ce_specversion", True, "always", "Version of CloudEvents: `1.0`.", r"^1\.0$"),
    Header("ce_id", True, "always", "Id of the event; ours are UUIDv7, sortable by time. The same event sent again, with the same id, type and content, is skipped; an id used for something else is another event."),
    Header("ce_source", True, "always", "Who says it: `neuroweaver/<service>`, `neuroweaver/edge` for HTTP, or your product."),
    Header("ce_type", True, "always", "`neuroweaver.` and the name of the event."),
    Header("ce_time", False, "always", "When it happened, RFC 3339 with zone. Absent, or none that can be kept: the record's time in the log."),
    Header("ce_subject", False, "always", "What it is about: the job's id, `job/step/attempt`, or the model's name."),
    Header("ce_dataschema", False, "always", "URN of the data's JSON Schema: `urn:neuroweaver:<event>:<version>`."),
    Header("ce_correlationid", False, "always", "Id of the job that all this belongs to. Where the data has a `job_id`, that one counts."),
    Header("ce_causationid", False, "where there is a cause", "`ce_id` of the event that led to this one."),
    Header(
        "ce_traceparent", False, "always", "W3C trace context; kept within a trace from hop to hop.", TRACEPARENT_PATTERN
    ),
    Header(
        "ce_sequence", False, "for decisions",
        "Number of the decision within its `ce_source` and `ce_subject`, from 1, zero-padded. Ignored on requests.",
        rf"^[0-9]{{{SEQUENCE_DIGITS}}}$",
    ),
    Header("content-type", False, "always", "`application/json`. Needed for structured mode: `application/cloudevents+json`."),
)  # fmt: skip

DEAD_LETTER_HEADERS = (
    ("dlq_error", "Why the record could not be read, or its handling failed."),
    ("dlq_topic", "Topic that it was read from."),
    ("dlq_partition", "Partition that it was read from."),
    ("dlq_offset", "Offset at which it lies there."),
    ("dlq_attempts", "How often it was tried."),
    ("dlq_appended_at", "Time at which the broker, or its sender, put it there (RFC 3339)."),
)
"""Added to the record's own headers, key and value."""
