"""Tables for people on a terminal, lines of cells in a pipe, JSON for programs, and never a mix of them on standard output."""

import sys
from collections.abc import Iterable, Sequence

from pydantic import TypeAdapter
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.cli.printable import printable, printable_lines

_ANY: TypeAdapter[object] = TypeAdapter(object)

_FOLDED = 30
"""A column may be folded to so many characters."""

out = Console(soft_wrap=not sys.stdout.isatty())
"""Standard output: results for people; in a pipe no line is folded."""
err = Console(stderr=True)
"""Standard error: progress and remarks."""


def say(text: str) -> None:
    """A line about what is being done, beside the result."""
    err.print(f"[dim]{escape(printable(text))}[/dim]", highlight=False, soft_wrap=True)


def print_text(text: str) -> None:
    """Text of others, its lines kept."""
    out.print(printable_lines(text), markup=False, highlight=False, soft_wrap=True)


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
        out.print(f"{name:<{width}}{printable(str(value))}", markup=False, highlight=False, soft_wrap=True)


def brief(text: str, limit: int) -> str:
    """The beginning on a terminal, with a sign where something is left out; all of it in a pipe."""
    return text if len(text) <= limit or not out.is_terminal else text[:limit] + "…"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """A table; cells are text, not markup, and never cut.

    In a pipe each row is one line of cells between tabs. On a terminal that is too narrow for the columns, each cell is a line.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not out.is_terminal:
        if title:
            out.print(title, markup=False, highlight=False)
        for row in [list(columns), *cells]:
            line = "\t".join(printable(cell).replace("\t", "\\t") for cell in row)
            out.file.write(line + "\n")  # rich would make blanks of the tabs
    elif _fits(columns, cells):
        table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in cells:
            table.add_row(*(escape(printable_lines(cell)) for cell in row))
        out.print(table, soft_wrap=False)
    else:
        if title:
            out.print(title, markup=False, highlight=False)
        for number, row in enumerate(cells):
            if number:
                out.print()
            print_pairs((name, cell) for name, cell in zip(columns, row, strict=True) if cell)


def _fits(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> bool:
    """Whether no cell has to be folded but those of the widest column, which is left enough."""
    lines = [list(columns), *rows]
    widths = [
        max(max(map(cell_len, cell.splitlines()), default=0) for cell in column) for column in zip(*lines, strict=True)
    ]
    left = out.width - 2 * (len(widths) - 1) - sum(widths) + max(widths)
    return left >= min(max(widths), _FOLDED)
