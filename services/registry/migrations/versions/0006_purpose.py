"""Adds a column with what a version is for; versions that were registered without it write answers."""

import sqlalchemy as sa
from alembic import op

revision = "registry_0006"
down_revision = "registry_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("registration", sa.Column("purpose", sa.Text), schema="projection")
    op.execute(
        """UPDATE projection.registration SET purpose = coalesce(state -> 'registered' ->> 'purpose', 'answers')
        WHERE version IS NOT NULL"""
    )


def downgrade() -> None:
    op.drop_column("registration", "purpose", schema="projection")
