"""The last own events of an attempt are known by their ids."""

from alembic import op

from services.chassis.migrations.own_ids import add_own_ids, drop_own_ids

revision = "feedback_0002"
down_revision = "feedback_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    add_own_ids(op, "attempt")


def downgrade() -> None:
    drop_own_ids(op, "attempt")
