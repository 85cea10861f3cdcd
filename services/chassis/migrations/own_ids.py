"""Adds the same column to every aggregate's table, for the migrations of the services that have the tables.

A released function never changes, just as a released migration does not.
"""

import sqlalchemy as sa

from services.chassis.migrations.operations import Operations


def add_own_ids(op: Operations, *tables: str) -> None:
    """Add `own_ids`: the ends of the ids of the last own events."""
    for table in tables:
        column = sa.Column("own_ids", sa.Text, nullable=False, server_default=sa.text("''"))
        op.add_column(table, column, schema="projection")


def drop_own_ids(op: Operations, *tables: str) -> None:
    """Undo `add_own_ids`."""
    for table in tables:
        op.drop_column(table, "own_ids", schema="projection")
