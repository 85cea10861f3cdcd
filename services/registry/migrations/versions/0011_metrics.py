"""Adds a generated column with the metrics of each version, so that a search does not read whole states."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "registry_0011"
down_revision = "registry_0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column("metrics", JSONB, sa.Computed("state -> 'registered' -> 'metrics'", persisted=True))
    op.add_column("registration", column, schema="projection")


def downgrade() -> None:
    op.drop_column("registration", "metrics", schema="projection")
