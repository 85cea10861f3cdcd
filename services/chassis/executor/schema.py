"""Creates the tables of an executor in the migrations of every executor, so that they are the same in each database.

A released function never changes, like a released migration: a later change of columns is a new function here
(`add_..._to_executor_tables(op)`), which a new migration of each executor calls, and an edit of `tables.py`.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from services.chassis.migrations.operations import Operations


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


_ORDER = ("work", [sa.text("priority DESC"), "turn", "requested_at", "key"])
_SLOT_COLUMNS = (
    ("requester", sa.Text, "'unknown'"), ("turn", sa.BigInteger, "0"), ("cores", sa.Integer, None),
    ("memory_mb", sa.Integer, None), ("device_mb", sa.Integer, None), ("passed", sa.Integer, "0"),
)  # fmt: skip


def add_slots_to_executor_tables(op: Operations) -> None:
    """Add to `work` the turn of its requester, what the attempt needs, and how often it was passed over."""
    for name, kind, default in _SLOT_COLUMNS:
        given = sa.text(default) if default else None
        column = sa.Column(name, kind, nullable=default is None, server_default=given)
        op.add_column("work", column, schema="operational")
    op.drop_index("work_order", "work", schema="operational")
    op.create_index("work_order", *_ORDER, schema="operational")
    op.create_index("work_turns", "work", ["requester", "priority", "turn"], schema="operational")
    op.create_index(
        "work_leased", "work", ["priority", "turn"], schema="operational", postgresql_where=sa.text("lease IS NOT NULL")
    )


def drop_slots_from_executor_tables(op: Operations) -> None:
    """Undo `add_slots_to_executor_tables`."""
    for index in ("work_leased", "work_turns", "work_order"):
        op.drop_index(index, "work", schema="operational")
    op.create_index("work_order", "work", [sa.text("priority DESC"), "requested_at", "key"], schema="operational")
    for name, _, _ in reversed(_SLOT_COLUMNS):
        op.drop_column("work", name, schema="operational")


def add_usage_to_executor_tables(op: Operations) -> None:
    """Add to `work` where an attempt runs and for how long workers have held it."""
    for name in ("host", "process"):
        op.add_column("work", sa.Column(name, sa.Text), schema="operational")
    kind = sa.ARRAY(sa.Integer)
    given: sa.Column[Any] = sa.Column("gpus", kind, nullable=False, server_default=sa.text("'{}'"))
    op.add_column("work", given, schema="operational")
    op.add_column("work", sa.Column("counted_at", sa.DateTime(timezone=True)), schema="operational")
    seconds = sa.Column("used_seconds", sa.Double, nullable=False, server_default=sa.text("0"))
    op.add_column("work", seconds, schema="operational")
    op.create_index("work_on_host", "work", ["host"], schema="operational", postgresql_where=sa.text("lease IS NOT NULL"))


def drop_usage_from_executor_tables(op: Operations) -> None:
    """Undo `add_usage_to_executor_tables`."""
    op.drop_index("work_on_host", "work", schema="operational")
    for name in ("used_seconds", "counted_at", "gpus", "process", "host"):
        op.drop_column("work", name, schema="operational")
