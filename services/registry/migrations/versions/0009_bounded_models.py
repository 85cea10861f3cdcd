"""Bounds the state of a model: its versions have rows already, and each move of an alias gets one.

The moves that a model's row has are not copied: a row has the places of its events on the log, which a replay knows and this
migration does not. `neuroweaver projections rebuild registry` makes them.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "registry_0009"
down_revision = "registry_0008"
branch_labels = None
depends_on = None

_HIGHEST = "ORDER BY CAST(string_to_array(version, '.') AS numeric[]) DESC LIMIT 1"
BOUNDED = f"""UPDATE projection.model SET state = (state - 'versions' - 'moves') || jsonb_build_object(
    'count', jsonb_array_length(state -> 'versions'),
    'highest', (SELECT version FROM jsonb_array_elements_text(state -> 'versions') AS version {_HIGHEST}),
    'newest', coalesce((SELECT jsonb_agg(version ORDER BY number) FROM jsonb_array_elements_text(state -> 'versions')
        WITH ORDINALITY AS each(version, number) WHERE number > jsonb_array_length(state -> 'versions') - 20), '[]'),
    'latest', CASE WHEN jsonb_typeof(state -> 'latest') = 'object'
        THEN jsonb_set(state -> 'latest', '{{results}}', '{{}}') ELSE 'null' END,
    'earlier', '{{}}'::jsonb, 'aliases_at', sequence)
    WHERE state ? 'versions'"""


def upgrade() -> None:
    op.execute(BOUNDED)
    op.create_table(
        "alias_move",
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
        sa.Column("moved_at", sa.DateTime(timezone=True)),
        sa.Column(
            "item", sa.Text, sa.Computed("CAST(state -> 'move' AS text)", persisted=True), comment="AliasMove as JSON."
        ),
        schema="projection",
    )
    due = sa.text("due_at IS NOT NULL")
    op.create_index("alias_move_due_at", "alias_move", ["due_at"], schema="projection", postgresql_where=due)
    columns = [sa.text("model"), sa.text("moved_at DESC"), sa.text("key DESC")]
    op.create_index("alias_move_model", "alias_move", columns, schema="projection")


def downgrade() -> None:
    """The rows of the earlier release come from the log: run its `neuroweaver projections rebuild registry`."""
    op.drop_table("alias_move", schema="projection")
