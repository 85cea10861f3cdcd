"""Adds columns for failed, parked and discarded records, and marks the partitions that have failed or parked ones."""

import sqlalchemy as sa
from alembic import op

revision = "chassis_0003"
down_revision = "chassis_0002"
branch_labels = None
depends_on = None

SCHEMA = "operational"
_COLUMNS: tuple[sa.Column[object], ...] = (
    sa.Column("state", sa.Text, nullable=False, server_default=sa.text("'unreadable'")),
    sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("1")),
    sa.Column("stack", sa.Text),
    sa.Column("event_type", sa.Text),
    sa.Column("event_id", sa.Text),
    sa.Column("correlation_id", sa.Text),
    sa.Column("names", sa.ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'")),
    sa.Column("blocked_by", sa.BigInteger),
    sa.Column("reason", sa.Text),
    sa.Column("discarded_by", sa.Text),
)
_INDEX = "dead_letter_withheld"


def upgrade() -> None:
    op.add_column(
        "position", sa.Column("withheld", sa.Boolean, nullable=False, server_default=sa.text("false")), schema=SCHEMA
    )
    for column in _COLUMNS:
        op.add_column("dead_letter", column, schema=SCHEMA)
    op.create_check_constraint(
        "dead_letter_state",
        "dead_letter",
        "state IN ('unreadable', 'failed', 'parked', 'discarded')",
        schema=SCHEMA,
    )
    op.create_index(
        _INDEX, "dead_letter", ["topic", "partition", "offset"], schema=SCHEMA,
        postgresql_where=sa.text("state IN ('failed', 'parked')"),
    )  # fmt: skip


def downgrade() -> None:
    op.drop_index(_INDEX, "dead_letter", schema=SCHEMA)
    op.drop_constraint("dead_letter_state", "dead_letter", schema=SCHEMA)
    for column in _COLUMNS:
        op.drop_column("dead_letter", column.name, schema=SCHEMA)
    op.drop_column("position", "withheld", schema=SCHEMA)
