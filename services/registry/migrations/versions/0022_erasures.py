"""Adds erasures of rows, and to data sets and versions what they say of erased rows; so far nothing was erased."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "registry_0022"
down_revision = "registry_0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "erasure",
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
        sa.Column("dataset", sa.Text, comment="The data set, `name@digest`."),
        sa.Column("erased_at", sa.DateTime(timezone=True)),
        schema="projection",
    )
    due = sa.text("due_at IS NOT NULL")
    op.create_index("erasure_due_at", "erasure", ["due_at"], schema="projection", postgresql_where=due)
    op.create_index("erasure_dataset", "erasure", ["dataset"], schema="projection")
    comment = "Whether bytes of erased rows are still to be removed."
    op.create_table(
        "erasure_check",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False, comment="Digest of a data set, or key of a version."),
        schema="operational",
        comment="Data that were stored and versions that were registered, still to be looked at for erased rows.",
    )
    op.add_column("dataset", sa.Column("erasing", sa.Boolean, comment=comment), schema="projection")
    op.execute(
        """UPDATE projection.dataset SET erasing = false, state = state || '{"erasures": 0, "removed": 0, "remains": null}'
           WHERE state <> '{}'::jsonb"""
    )
    where = sa.text("erasing")
    op.create_index("dataset_erasing", "dataset", ["key"], schema="projection", postgresql_where=where)
    rows = sa.Column("erased_rows", sa.BigInteger, comment="How many rows that were erased it learnt from.")
    op.add_column("registration", rows, schema="projection")
    op.execute(
        """UPDATE projection.registration SET erased_rows = 0, state = state || '{"erased": {}}' WHERE state <> '{}'::jsonb"""
    )
    newest = [sa.text("registered_at DESC"), sa.text("key DESC")]
    op.create_index(
        "registration_erased", "registration", newest, schema="projection", postgresql_where=sa.text("erased_rows > 0")
    )


def downgrade() -> None:
    op.drop_index("registration_erased", "registration", schema="projection")
    op.drop_column("registration", "erased_rows", schema="projection")
    op.execute("UPDATE projection.registration SET state = state - 'erased'")
    op.drop_index("dataset_erasing", "dataset", schema="projection")
    op.execute("UPDATE projection.dataset SET state = state - 'erasures' - 'removed' - 'remains'")
    op.drop_column("dataset", "erasing", schema="projection")
    op.drop_table("erasure_check", schema="operational")
    op.drop_table("erasure", schema="projection")
