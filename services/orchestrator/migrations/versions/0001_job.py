"""Jobs, and the latest progress of their attempts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "orchestrator_0001"
down_revision = None
branch_labels = ("orchestrator",)
depends_on = "chassis_0001"


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("state", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True)),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
        sa.Column("offsets", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("own_event_id", sa.Text),
        sa.Column("status", sa.Text),
        sa.Column("requester", sa.Text),
        sa.Column("pipeline", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("version", sa.Text),
        sa.Column("steps", sa.Integer),
        sa.Column("steps_done", sa.Integer),
        sa.Column("requested_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        schema="projection",
    )
    op.create_index("job_due_at", "job", ["due_at"], schema="projection", postgresql_where=sa.text("due_at IS NOT NULL"))
    newest = [sa.text("requested_at DESC"), sa.text("key DESC")]
    op.create_index("job_newest", "job", newest, schema="projection")
    op.create_index("job_status", "job", ["status", *newest], schema="projection")
    op.create_table(
        "progress",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data", JSONB, nullable=False),
        schema="operational",
    )
    op.create_index("progress_job_id", "progress", ["job_id"], schema="operational")


def downgrade() -> None:
    op.drop_table("progress", schema="operational")
    op.drop_table("job", schema="projection")
