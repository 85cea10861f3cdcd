"""The last own events of a job are known by their ids."""

from alembic import op

from services.chassis.migrations.own_ids import add_own_ids, drop_own_ids

revision = "orchestrator_0002"
down_revision = "orchestrator_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    add_own_ids(op, "job")


def downgrade() -> None:
    drop_own_ids(op, "job")
