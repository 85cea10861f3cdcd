"""Adds what the server of a slot calls the version that it serves."""

import sqlalchemy as sa
from alembic import op

revision = "registry_0023"
down_revision = "registry_0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    comment = "What its server calls the version; empty: `served`."
    op.add_column(
        "deployment_slot",
        sa.Column("called", sa.Text, nullable=False, server_default="", comment=comment),
        schema="operational",
    )


def downgrade() -> None:
    op.drop_column("deployment_slot", "called", schema="operational")
