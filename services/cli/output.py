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


def say(text: str) -> None:
    """A line about what is being done, beside the result."""
    err.print(f"[dim]{escape(text)}[/dim]", highlight=False)


def print_json(value: object) -> None:
    """A result for programs: pydantic models, dataclasses and plain values alike."""
    sys.stdout.write(_ANY.dump_json(value, indent=2).decode() + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A table; cells are text, not markup."""
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    out.print(table)
