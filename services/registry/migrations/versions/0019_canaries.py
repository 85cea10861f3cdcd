"""Adds the counts of what the callers of canaries get."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "registry_0019"
down_revision = "registry_0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deployment_traffic",
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("rollout", sa.BigInteger, nullable=False, comment="The generation that is rolled out."),
        sa.Column("percent", sa.Double, nullable=False, comment="The step."),
        sa.Column("target", sa.Boolean, nullable=False, comment="Whether it counts the version that is rolled out."),
        sa.Column("process", sa.Text, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("errors", sa.BigInteger, nullable=False),
        sa.Column("empty", sa.BigInteger, nullable=False),
        sa.Column("latencies", JSONB, nullable=False, comment="Number of answers by bucket."),
        sa.PrimaryKeyConstraint("deployment", "rollout", "percent", "target", "process"),
        schema="operational",
        comment="What the callers of canaries got, as each process counted it.",
    )


def downgrade() -> None:
    op.drop_table("deployment_traffic", schema="operational")
