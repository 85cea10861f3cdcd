"""Attempts and work: the tables of every executor."""

from alembic import op

from services.chassis.executor.schema import create_executor_tables, drop_executor_tables

revision = "trainer_0001"
down_revision = None
branch_labels = ("trainer",)
depends_on = "chassis_0001"


def upgrade() -> None:
    create_executor_tables(op)


def downgrade() -> None:
    drop_executor_tables(op)
