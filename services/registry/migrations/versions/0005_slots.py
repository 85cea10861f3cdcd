"""Work knows its requester's turn and what it needs of a machine."""

from alembic import op

from services.chassis.executor.schema import add_slots_to_executor_tables, drop_slots_from_executor_tables

revision = "registry_0005"
down_revision = "registry_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    add_slots_to_executor_tables(op)


def downgrade() -> None:
    drop_slots_from_executor_tables(op)
