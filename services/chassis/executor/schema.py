"""Creates the tables of an executor in the migrations of every executor, so that they are the same in each database.

A released function never changes, like a released migration: a later change of columns is a new function here
(`add_..._to_executor_tables(op)`), which a new migration of each executor calls, and an edit of `tables.py`.
"""

from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB


class Operations(Protocol):
    """The part of `alembic.op` that is used here."""

    def create_table(self, table_name: str, *columns: Any, **kw: Any) -> Any:
        """Create a table."""

    def create_index(self, index_name: str | None, table_name: str, columns: list[Any], **kw: Any) -> None:
        """Create an index."""

    def drop_table(self, table_name: str, **kw: Any) -> None:
        """Drop a table."""


def create_executor_tables(op: Operations) -> None:
    """Create the aggregate table `attempt` and the operational table `work`; every executor's first migration calls it."""
    op.create_table(
        "attempt",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("state", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True)),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
        sa.Column("offsets", JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")),
        sa.Column("own_event_id", sa.Text),
        sa.Column("job_id", sa.Text),
        sa.Column("step", sa.Text),
        sa.Column("attempt", sa.Integer),
        sa.Column("kind", sa.Text),
        sa.Column("status", sa.Text),
        sa.Column("priority", sa.Integer),
        sa.Column("requested_at", sa.DateTime(timezone=True)),
        sa.Column("not_before", sa.DateTime(timezone=True)),
        schema="projection",
    )
    op.create_index(
        "attempt_due_at", "attempt", ["due_at"], schema="projection", postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.create_index(
        "attempt_open", "attempt", ["status"], schema="projection",
        postgresql_where=sa.text("status IN ('queued', 'running', 'cancelling')"),
    )  # fmt: skip
    op.create_table(
        "work",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True)),
        sa.Column("cancel", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("lease", sa.Text),
        sa.Column("leased_until", sa.DateTime(timezone=True)),
        sa.Column("leases", sa.Integer, nullable=False, server_default=sa.text("0")),
        schema="operational",
    )
    op.create_index("work_order", "work", [sa.text("priority DESC"), "requested_at", "key"], schema="operational")


def drop_executor_tables(op: Operations) -> None:
    """Undo `create_executor_tables`."""
    op.drop_table("work", schema="operational")
    op.drop_table("attempt", schema="projection")
