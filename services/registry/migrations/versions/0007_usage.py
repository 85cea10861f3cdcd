"""Work knows where it runs and for how long workers have held it."""

from alembic import op

from services.chassis.executor.schema import add_usage_to_executor_tables, drop_usage_from_executor_tables

revision = "registry_0007"
down_revision = "registry_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    add_usage_to_executor_tables(op)


def downgrade() -> None:
    drop_usage_from_executor_tables(op)
