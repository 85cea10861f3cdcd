"""Defines the tables of every service: aggregates in the schema `projection`, the chassis' own tables in `operational`.

Projections are a fold of the log and can be rebuilt; operational tables (position, inbox, outbox, dead letters, work)
cannot, and a rebuild keeps them. Both schemas are on the search path, so statements name no schema and a rebuild can
write into another one.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

PROJECTION = "projection"
OPERATIONAL = "operational"

HEADER_COLUMNS = (
    "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_dataschema", "ce_correlationid",
    "ce_causationid", "ce_traceparent", "ce_sequence",
)  # fmt: skip
"""Outbox columns that are sent as record headers of the same name."""


def aggregate_table(metadata: MetaData, name: str, *extra: Column[object], schema: str = PROJECTION) -> Table:
    """Return the table of one aggregate type; `extra` are its query columns."""
    return Table(
        name,
        metadata,
        Column("key", Text, primary_key=True),
        Column("sequence", BigInteger, nullable=False, server_default=text("0")),
        Column("state", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
        Column("due_at", DateTime(timezone=True)),
        Column("created_at", DateTime(timezone=True)),
        Column("updated_at", DateTime(timezone=True)),
        Column("offsets", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
        Column("own_event_id", Text),
        Column(
            "own_ids", Text, nullable=False, server_default=text("''"), comment="Endings of the ids of the last own events."
        ),
        *extra,
        Index(f"{name}_due_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        schema=schema,
    )


def operational_tables(metadata: MetaData) -> None:
    """Add the chassis' operational tables to `metadata`."""
    Table(
        "position",
        metadata,
        Column("topic", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("next_offset", BigInteger, nullable=False),
        Column(
            "withheld",
            Boolean,
            nullable=False,
            server_default=text("false"),
            comment="Whether the dead letters of the partition must be read before its records are applied.",
        ),
        PrimaryKeyConstraint("topic", "partition"),
        schema=OPERATIONAL,
        postgresql_with={"fillfactor": "50"},
        comment="The fence: the first offset of each partition that is not yet applied.",
    )
    Table(
        "log_identity",
        metadata,
        Column("topic", Text, primary_key=True),
        Column("cluster_id", Text, nullable=False),
        Column("topic_id", Text, nullable=False),
        Column("noted_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        schema=OPERATIONAL,
        comment="Which log the positions of a topic belong to, as the cluster said when it was first read.",
    )
    Table(
        "standing",
        metadata,
        Column("topic", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("cause", Text, nullable=False, comment="One of `Cause` in consuming.identity.examine."),
        Column("offset", BigInteger, nullable=False, comment="The position at which the partition is stopped."),
        Column("next_offset", BigInteger, comment="First readable offset after removed records; null for other causes."),
        Column("reason", Text, nullable=False),
        Column("since", DateTime(timezone=True), nullable=False, server_default=func.now()),
        PrimaryKeyConstraint("topic", "partition"),
        schema=OPERATIONAL,
        comment="Partitions that are stopped, and why; a row whose offset is not the position is out of date.",
    )
    Table(
        "inbox",
        metadata,
        Column("source", Text, nullable=False),
        Column("id", Text, nullable=False),
        Column("identity", LargeBinary, nullable=False, comment="Digest of partition, source, id, type and content."),
        Column("topic", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("offset", BigInteger, nullable=False),
        Column("appended_at", DateTime(timezone=True), nullable=False, comment="Of the record, by the broker."),
        PrimaryKeyConstraint("source", "id", "identity"),
        schema=OPERATIONAL,
        comment="Events of others and the record that counts for each: a later one is a producer's duplicate.",
    )
    Table(
        "outbox",
        metadata,
        Column("position", BigInteger, Identity(always=True), primary_key=True),
        Column("aggregatetype", Text, nullable=False, comment="Topic."),
        Column("aggregateid", Text, nullable=False, comment="Record key."),
        Column("type", Text, nullable=False, comment="Event type."),
        Column("payload", Text, nullable=False, comment="Event data as JSON."),
        *(Column(name, Text) for name in HEADER_COLUMNS),
        schema=OPERATIONAL,
        postgresql_with={"autovacuum_vacuum_scale_factor": "0.0", "autovacuum_vacuum_threshold": "5000"},
        comment="Own events to publish, in order per key; columns as the Debezium outbox event router reads them.",
    )
    Table(
        "dead_letter",
        metadata,
        Column("topic", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("offset", BigInteger, nullable=False),
        Column("key", LargeBinary),
        Column("value", LargeBinary),
        Column("headers", JSONB, nullable=False, comment="Pairs of name and base64 of the value."),
        Column("error", Text, nullable=False),
        Column("appended_at", DateTime(timezone=True), nullable=False),
        Column("recorded_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("published", Boolean, nullable=False, server_default=text("false")),
        Column("state", Text, nullable=False, server_default=text("'unreadable'"), comment="See deadletters.repository."),
        Column("attempts", Integer, nullable=False, server_default=text("1")),
        Column("stack", Text),
        Column("event_type", Text),
        Column("event_id", Text),
        Column("correlation_id", Text),
        Column(
            "names",
            ARRAY(Text),
            nullable=False,
            server_default=text("'{}'"),
            comment="What it blocks, see deadletters.parking.",
        ),
        Column("blocked_by", BigInteger, comment="Offset of the record that a parked one waits for."),
        Column("reason", Text, comment="Why it was discarded."),
        Column("discarded_by", Text),
        PrimaryKeyConstraint("topic", "partition", "offset"),
        CheckConstraint("state IN ('unreadable', 'failed', 'parked', 'discarded')", name="dead_letter_state"),
        Index("dead_letter_unpublished", "recorded_at", postgresql_where=text("NOT published")),
        Index(
            "dead_letter_withheld", "topic", "partition", "offset", postgresql_where=text("state IN ('failed', 'parked')")
        ),
        schema=OPERATIONAL,
        comment="Records that are not applied although the position is past them, with their bytes and the reason.",
    )
    Table(
        "replay",
        metadata,
        Column("id", Text, primary_key=True),
        Column("kind", Text, nullable=False, comment="verify, rebuild or restore."),
        Column("state", Text, nullable=False, comment="running, done, failed or cancelled."),
        Column("phase", Text, nullable=False),
        Column("done", BigInteger, nullable=False, comment="Records folded."),
        Column("total", BigInteger, nullable=False, comment="Records to fold."),
        Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("ended_at", DateTime(timezone=True)),
        Column("error", Text),
        Column("result", JSONB),
        schema=OPERATIONAL,
        comment="Verifies, rebuilds and restores of the projection: how far each is, and what it found.",
    )
    Table(
        "sweep",
        metadata,
        Column("aggregate", Text, nullable=False),
        Column("key", Text, nullable=False),
        PrimaryKeyConstraint("aggregate", "key"),
        schema=OPERATIONAL,
        comment="Rows that a replay changed: the ticker calls `decide` for each of them once.",
    )
