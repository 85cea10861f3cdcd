"""Compares two versions of a projection row by row, and returns a digest per table and readable differences."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.base import Frozen
from services.chassis.kernel.aggregate import AggregateType
from services.chassis.kernel.transaction.statements import ROW_COLUMNS
from services.chassis.replay import statements

SHOWN_ROWS = 20


class FieldDifference(Frozen):
    """One field in which two versions of a row differ."""

    field: str = Field(description="Column, and for JSON the path in it, such as state.steps.train.status.")
    live: Any = Field(default=None, description="Value in the live row; null if it has none.")
    replayed: Any = Field(default=None, description="Value according to the log.")


class RowDifference(Frozen):
    """One row that differs from the replayed one."""

    table: str
    key: str
    kind: str = Field(description="changed, missing (only in the log) or extra (not in the log).")
    fields: tuple[FieldDifference, ...] = Field(default=(), description="The differing fields of a changed row.")


class TableComparison(Frozen):
    """One table of a projection, live and replayed."""

    table: str
    rows: int = Field(description="Number of rows of the live table.")
    live_digest: str = Field(description="Digest of all rows of the live table, whatever their order.")
    replayed_digest: str = Field(description="The same digest of the rows folded from the log.")
    differences: int = Field(description="Number of rows that differ.")
    shown: tuple[RowDifference, ...] = Field(default=(), description=f"The first {SHOWN_ROWS} of them, by key.")


async def compare(
    connection: AsyncConnection, aggregates: Mapping[str, AggregateType], live: str, replayed: str
) -> tuple[TableComparison, ...]:
    """Compare the tables of two schemas, in the connection's snapshot. Rows that no event created are left out."""
    found = []
    for name in sorted(aggregates):
        columns = (*ROW_COLUMNS, *aggregates[name].columns)
        rows, live_digest = await _digest(connection, live, name, columns)
        _, replayed_digest = await _digest(connection, replayed, name, columns)
        count, shown = 0, tuple[RowDifference, ...]()
        if live_digest != replayed_digest:
            count, shown = await _differences(connection, live, replayed, name, columns)
        found.append(
            TableComparison(
                table=name,
                rows=rows,
                live_digest=live_digest,
                replayed_digest=replayed_digest,
                differences=count,
                shown=shown,
            )
        )
    return tuple(found)


async def _digest(connection: AsyncConnection, schema: str, table: str, columns: Sequence[str]) -> tuple[int, str]:
    """Return the number of rows, and a digest of their multiset: the sums of two 64-bit hashes."""
    row = (await connection.execute(statements.digest(schema, table, columns))).one()
    return row[0], f"{int(row[1]) % 2**64:016x}{int(row[2]) % 2**64:016x}"


async def _differences(
    connection: AsyncConnection, live: str, replayed: str, table: str, columns: Sequence[str]
) -> tuple[int, tuple[RowDifference, ...]]:
    rows = await connection.execute(statements.differences(live, replayed, table, columns, SHOWN_ROWS))
    count, shown = 0, []
    for total, key, left, right in rows:
        count = total
        before, after = (json.loads(side) if side else None for side in (left, right))
        kind = "missing" if before is None else "extra" if after is None else "changed"
        fields = tuple(_walk("", before, after)) if kind == "changed" else ()
        shown.append(RowDifference(table=table, key=key, kind=kind, fields=fields))
    return count, tuple(shown)


def _walk(path: str, live: Any, replayed: Any) -> Iterator[FieldDifference]:
    if live == replayed:
        return
    if isinstance(live, dict) and isinstance(replayed, dict):
        for name in sorted(live.keys() | replayed.keys()):
            yield from _walk(f"{path}.{name}" if path else name, live.get(name), replayed.get(name))
    elif isinstance(live, list) and isinstance(replayed, list) and len(live) == len(replayed):
        for number, (one, other) in enumerate(zip(live, replayed, strict=True)):
            yield from _walk(f"{path}[{number}]", one, other)
    else:
        yield FieldDifference(field=path, live=live, replayed=replayed)
