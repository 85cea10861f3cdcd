"""Adds the rows of deployments, and what a driver observed of their slots."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "registry_0016"
down_revision = "registry_0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deployment",
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
        sa.Column("open", sa.Boolean),
        schema="projection",
    )
    due = sa.text("due_at IS NOT NULL")
    op.create_index("deployment_due_at", "deployment", ["due_at"], schema="projection", postgresql_where=due)
    op.create_index("deployment_open", "deployment", ["key"], schema="projection", postgresql_where=sa.text("open"))
    op.create_table(
        "deployment_slot",
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("slot", sa.Text, nullable=False),
        sa.Column("served", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("address", sa.Text, comment="Base URL of its server."),
        sa.Column("headers", JSONB, nullable=False, comment="What a request to it needs; one may be a secret."),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=False, comment="On the database's clock."),
        sa.PrimaryKeyConstraint("deployment", "slot"),
        schema="operational",
        comment="What the driver observed of the slots of deployments.",
    )


def downgrade() -> None:
    op.drop_table("deployment_slot", schema="operational")
    op.drop_table("deployment", schema="projection")
