"""The last own events of an attempt, a model and a registration are known by their ids."""

from alembic import op

from services.chassis.migrations.own_ids import add_own_ids, drop_own_ids

revision = "registry_0002"
down_revision = "registry_0001"
branch_labels = None
depends_on = None

TABLES = ("attempt", "model", "registration")


def upgrade() -> None:
    add_own_ids(op, *TABLES)


def downgrade() -> None:
    drop_own_ids(op, *TABLES)
