"""Adds the same column to every aggregate's table, for the migrations of the services that have the tables.

A released function never changes, just as a released migration does not.
"""

from typing import Any, Protocol

import sqlalchemy as sa


class Operations(Protocol):
    """The part of `alembic.op` that is used here."""

    def add_column(self, table_name: str, column: "sa.Column[Any]", *, schema: str | None = None) -> None:
        """Add a column."""

    def drop_column(self, table_name: str, column_name: str, *, schema: str | None = None) -> None:
        """Remove a column."""


def add_own_ids(op: Operations, *tables: str) -> None:
    """Add `own_ids`: the ends of the ids of the last own events."""
    for table in tables:
        column = sa.Column("own_ids", sa.Text, nullable=False, server_default=sa.text("''"))
        op.add_column(table, column, schema="projection")


def drop_own_ids(op: Operations, *tables: str) -> None:
    """Undo `add_own_ids`."""
    for table in tables:
        op.drop_column(table, "own_ids", schema="projection")
