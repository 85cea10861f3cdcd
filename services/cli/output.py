"""Why: tables for people on a terminal, JSON for programs, and never a mix of both on standard output."""

import sys
from collections.abc import Iterable, Sequence

from pydantic import TypeAdapter
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_ANY: TypeAdapter[object] = TypeAdapter(object)

out = Console()
"""Standard output: results for people."""
err = Console(stderr=True)
"""Standard error: progress and remarks."""


def printable(text: str) -> str:
    """Text of others in which nothing steers the reader's terminal."""
    return "".join(sign if sign.isprintable() or sign == "\t" else ascii(sign)[1:-1] for sign in text)


def say(text: str) -> None:
    """A line about what is being done, beside the result."""
    err.print(f"[dim]{escape(text)}[/dim]", highlight=False, soft_wrap=True)


def print_line(text: str = "") -> None:
    """A line that may hold text of others, never cut: a person may want to copy it."""
    out.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """A result for programs: pydantic models, dataclasses and plain values alike."""
    sys.stdout.write(_ANY.dump_json(value, indent=2).decode() + "\n")


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line, never cut: a person may want to copy them."""
    known = [(name, value) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in known), default=0) + 2
    for name, value in known:
        out.print(f"{name:<{width}}{value}", markup=False, highlight=False, soft_wrap=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A table; cells are text, not markup."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    out.print(table)
