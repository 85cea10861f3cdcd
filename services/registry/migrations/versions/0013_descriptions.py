"""Versions have descriptions and tags; those that were registered before have none yet."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "registry_0013"
down_revision = "registry_0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""UPDATE projection.registration SET state = state || '{"description": "", "tags": {}}'""")
    column = sa.Column("tags", JSONB, sa.Computed("state -> 'tags'", persisted=True))
    op.add_column("registration", column, schema="projection")


def downgrade() -> None:
    op.drop_column("registration", "tags", schema="projection")
    op.execute("UPDATE projection.registration SET state = state - 'description' - 'tags'")
