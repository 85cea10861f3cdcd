"""Adds the rows of steps that stored data or learnt from them. Steps of earlier releases say nothing of the rows that they used."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "registry_0017"
down_revision = "registry_0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "data_use",
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
        sa.Column("job_id", sa.Text),
        sa.Column("stored", sa.Text, comment="Digest of the data set that the step stored."),
        sa.Column("used_at", sa.DateTime(timezone=True)),
        schema="projection",
    )
    due = sa.text("due_at IS NOT NULL")
    op.create_index("data_use_due_at", "data_use", ["due_at"], schema="projection", postgresql_where=due)
    op.create_index("data_use_job", "data_use", ["job_id"], schema="projection")
    stored: list[Any] = ["stored", sa.text("used_at DESC"), sa.text("key DESC")]
    op.create_index("data_use_stored", "data_use", stored, schema="projection")


def downgrade() -> None:
    op.drop_table("data_use", schema="projection")
