"""Adds columns with what lists show of a state, so that no list reads whole states."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "registry_0003"
down_revision = "registry_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("model", _part("aliases", "state -> 'aliases'"), schema="projection")
    op.add_column("registration", _part("metrics", "state -> 'registered' -> 'metrics'"), schema="projection")


def downgrade() -> None:
    op.drop_column("registration", "metrics", schema="projection")
    op.drop_column("model", "aliases", schema="projection")


def _part(name: str, of: str) -> "sa.Column[object]":
    return sa.Column(name, JSONB, sa.Computed(of, persisted=True))
