"""Versions can be deleted, and the registry keeps which jobs have ended; those that ended before are known after a rebuild."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "registry_0021"
down_revision = "registry_0020"
branch_labels = None
depends_on = None

_STATES = "COMMENT ON COLUMN projection.registration.version_state IS"


def upgrade() -> None:
    op.execute("""UPDATE projection.registration SET state = state || '{"deleted_at": null, "files_removed_at": null}'""")
    op.execute(f"{_STATES} 'live, deprecated, archived or deleted.'")
    op.create_table(
        "job_end",
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
        sa.Column("ended", sa.Boolean),
        schema="projection",
    )
    due = sa.text("due_at IS NOT NULL")
    op.create_index("job_end_due_at", "job_end", ["due_at"], schema="projection", postgresql_where=due)


def downgrade() -> None:
    op.drop_table("job_end", schema="projection")
    op.execute(f"{_STATES} 'live, deprecated or archived.'")
    op.execute("UPDATE projection.registration SET state = state - 'deleted_at' - 'files_removed_at'")
