"""Adds the rows of checks of gates, and to models the policies of their aliases.

Which version an alias names by which registration, and when it left its earlier ones, is not known of moves that an earlier release
made: gates that compare with that version are inconclusive, and a rollback to one of those passes the gates first.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "registry_0010"
down_revision = "registry_0009"
branch_labels = None
depends_on = None

_FIELDS = '\'{"left": {}, "holders": {}, "policies": {}}\''


def upgrade() -> None:
    op.execute(f"UPDATE projection.model SET state = CAST({_FIELDS} AS jsonb) || state")
    op.create_table(
        "gate_check",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("state", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True)),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
        sa.Column("offsets", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("own_event_id", sa.Text),
        sa.Column(
            "own_ids",
            sa.Text,
            nullable=False,
            server_default=sa.text("''"),
            comment="Endings of the ids of the last own events.",
        ),
        sa.Column("model", sa.Text),
        sa.Column("alias", sa.Text),
        sa.Column("version", sa.Text),
        sa.Column("checked_at", sa.DateTime(timezone=True)),
        sa.Column(
            "item", sa.Text, sa.Computed("CAST(state -> 'check' AS text)", persisted=True), comment="GateCheck as JSON."
        ),
        schema="projection",
    )
    due = sa.text("due_at IS NOT NULL")
    op.create_index("gate_check_due_at", "gate_check", ["due_at"], schema="projection", postgresql_where=due)
    columns = [sa.text("model"), sa.text("checked_at DESC"), sa.text("key DESC")]
    op.create_index("gate_check_model", "gate_check", columns, schema="projection")


def downgrade() -> None:
    """The rows of the earlier release come from the log: run its `neuroweaver projections rebuild registry`."""
    op.drop_table("gate_check", schema="projection")
