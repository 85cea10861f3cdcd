"""The part of `alembic.op` that shared migrations use, as a type: Alembic makes the module's functions while it runs."""

from typing import Any, Protocol

import sqlalchemy as sa


class Operations(Protocol):
    """The part of `alembic.op` that shared migrations use."""

    def create_table(self, table_name: str, *columns: Any, **kw: Any) -> Any:
        """Create a table."""

    def create_index(self, index_name: str | None, table_name: str, columns: list[Any], **kw: Any) -> None:
        """Create an index."""

    def drop_index(self, index_name: str, table_name: str | None = None, **kw: Any) -> None:
        """Drop an index."""

    def add_column(self, table_name: str, column: "sa.Column[Any]", *, schema: str | None = None) -> None:
        """Add a column."""

    def drop_column(self, table_name: str, column_name: str, *, schema: str | None = None) -> None:
        """Remove a column."""

    def drop_table(self, table_name: str, **kw: Any) -> None:
        """Drop a table."""
