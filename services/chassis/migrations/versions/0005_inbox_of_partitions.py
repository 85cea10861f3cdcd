"""The inbox is scoped by partition and timed by the log.

What it knew does not say on which partition it lay, so it is forgotten: a duplicate of it is applied again, which changes
nothing, since every fold of an event gives the same state.
"""

import sqlalchemy as sa
from alembic import op

revision = "chassis_0005"
down_revision = "chassis_0004"
branch_labels = None
depends_on = None

SCHEMA = "operational"


def upgrade() -> None:
    op.drop_table("inbox", schema=SCHEMA)
    op.create_table(
        "inbox",
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("identity", sa.LargeBinary, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("appended_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "id", "identity"),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("inbox", schema=SCHEMA)
    op.create_table(
        "inbox",
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("source", "id"),
        schema=SCHEMA,
    )
    op.create_index("inbox_received_at", "inbox", ["received_at"], schema=SCHEMA, postgresql_using="brin")
