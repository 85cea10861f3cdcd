"""Adds a generated column with the version that each version started from, and the index of the filter by it."""

import sqlalchemy as sa
from alembic import op

revision = "registry_0008"
down_revision = "registry_0007"
branch_labels = None
depends_on = None

STARTED_FROM = "state -> 'registered' -> 'lineage' ->> 'started_from'"


def upgrade() -> None:
    column = sa.Column("started_from", sa.Text, sa.Computed(STARTED_FROM, persisted=True))
    op.add_column("registration", column, schema="projection")
    newest = [sa.text("registered_at DESC"), sa.text("key DESC")]
    op.create_index("registration_started_from", "registration", ["started_from", *newest], schema="projection")


def downgrade() -> None:
    op.drop_index("registration_started_from", "registration", schema="projection")
    op.drop_column("registration", "started_from", schema="projection")
