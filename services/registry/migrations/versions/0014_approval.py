"""Adds the rows of requests that wait for approval, and to models which of them wait."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "registry_0014"
down_revision = "registry_0013"
branch_labels = None
depends_on = None

_POLICIES = """(SELECT coalesce(jsonb_object_agg(key, jsonb_build_object('approval', false) || value), '{}')
    FROM jsonb_each(state -> 'policies'))"""
_MOVE = """jsonb_build_object('request', null, 'approved_by', null) || (state -> 'move')"""


def upgrade() -> None:
    fields = f"jsonb_build_object('requests', jsonb_build_object(), 'policies', {_POLICIES})"
    op.execute(f"UPDATE projection.model SET state = state || {fields}")
    op.execute(f"UPDATE projection.alias_move SET state = jsonb_set(state, '{{move}}', {_MOVE}) WHERE state ? 'move'")
    op.create_table(
        "promotion_request",
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
        sa.Column("status", sa.Text),
        sa.Column("requested_at", sa.DateTime(timezone=True)),
        sa.Column(
            "item",
            sa.Text,
            sa.Computed("CAST((state -> 'asked') || (state -> 'outcome') AS text)", persisted=True),
            comment="PromotionRequest as JSON.",
        ),
        schema="projection",
    )
    due = sa.text("due_at IS NOT NULL")
    op.create_index("promotion_request_due_at", "promotion_request", ["due_at"], schema="projection", postgresql_where=due)
    columns = [sa.text("model"), sa.text("requested_at DESC"), sa.text("key DESC")]
    op.create_index("promotion_request_model", "promotion_request", columns, schema="projection")


def downgrade() -> None:
    op.drop_table("promotion_request", schema="projection")
    op.execute("UPDATE projection.alias_move SET state = state #- '{move,request}' #- '{move,approved_by}'")
    policies = "(SELECT coalesce(jsonb_object_agg(key, value - 'approval'), '{}') FROM jsonb_each(state -> 'policies'))"
    op.execute(f"UPDATE projection.model SET state = (state - 'requests') || jsonb_build_object('policies', {policies})")
