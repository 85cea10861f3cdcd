"""Replays and the rows that the ticker has to ask about after one."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "chassis_0002"
down_revision = "chassis_0001"
branch_labels = None
depends_on = None

SCHEMA = "operational"


def upgrade() -> None:
    op.create_table(
        "replay",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("done", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("error", sa.Text),
        sa.Column("result", JSONB),
        schema=SCHEMA,
    )
    op.create_table(
        "sweep",
        sa.Column("aggregate", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("aggregate", "key"),
        schema=SCHEMA,
    )


def downgrade() -> None:
    for table in ("sweep", "replay"):
        op.drop_table(table, schema=SCHEMA)
