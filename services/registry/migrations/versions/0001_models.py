"""Attempts at register steps, models, and one row for each version."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from services.chassis.executor.schema import create_executor_tables, drop_executor_tables

revision = "registry_0001"
down_revision = None
branch_labels = ("registry",)
depends_on = "chassis_0001"

SCHEMA = "projection"


def _aggregate_table(name: str, *extra: "sa.Column[object]") -> None:
    op.create_table(
        name,
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("state", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True)),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
        sa.Column("offsets", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("own_event_id", sa.Text),
        *extra,
        schema=SCHEMA,
    )
    due = sa.text("due_at IS NOT NULL")
    op.create_index(f"{name}_due_at", name, ["due_at"], schema=SCHEMA, postgresql_where=due)


def upgrade() -> None:
    create_executor_tables(op)
    _aggregate_table("model")
    _aggregate_table(
        "registration",
        sa.Column("model", sa.Text),
        sa.Column("version", sa.Text),
        sa.Column("job_id", sa.Text),
        sa.Column("requester", sa.Text),
        sa.Column("base_model", sa.Text),
        sa.Column("dataset_sha256", sa.Text),
        sa.Column("registered_at", sa.DateTime(timezone=True)),
    )
    newest = [sa.text("registered_at DESC"), sa.text("key DESC")]
    op.create_index("registration_newest", "registration", newest, schema=SCHEMA)
    op.create_index("registration_version", "registration", ["model", "version"], unique=True, schema=SCHEMA)


def downgrade() -> None:
    op.drop_table("registration", schema=SCHEMA)
    op.drop_table("model", schema=SCHEMA)
    drop_executor_tables(op)
