"""Position, inbox, outbox and dead letters: the tables of the one-transaction batch."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "chassis_0001"
down_revision = None
branch_labels = ("chassis",)
depends_on = None

SCHEMA = "operational"
_HEADERS = (
    "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_dataschema", "ce_correlationid",
    "ce_causationid", "ce_traceparent", "ce_sequence",
)  # fmt: skip


def upgrade() -> None:
    op.create_table(
        "position",
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("next_offset", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition"),
        schema=SCHEMA,
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "inbox",
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("source", "id"),
        schema=SCHEMA,
    )
    op.create_index("inbox_received_at", "inbox", ["received_at"], schema=SCHEMA, postgresql_using="brin")
    op.create_table(
        "outbox",
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("aggregatetype", sa.Text, nullable=False),
        sa.Column("aggregateid", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        *(sa.Column(name, sa.Text) for name in _HEADERS),
        schema=SCHEMA,
        postgresql_with={"autovacuum_vacuum_scale_factor": "0.0", "autovacuum_vacuum_threshold": "5000"},
    )
    op.create_table(
        "dead_letter",
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("key", sa.LargeBinary),
        sa.Column("value", sa.LargeBinary),
        sa.Column("headers", JSONB, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("appended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("published", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.PrimaryKeyConstraint("topic", "partition", "offset"),
        schema=SCHEMA,
    )
    op.create_index(
        "dead_letter_unpublished", "dead_letter", ["recorded_at"], schema=SCHEMA,
        postgresql_where=sa.text("NOT published"),
    )  # fmt: skip


def downgrade() -> None:
    for table in ("dead_letter", "outbox", "inbox", "position"):
        op.drop_table(table, schema=SCHEMA)
