"""Tables for people on a terminal, lines of cells in a pipe, JSON for programs, and never a mix of them on standard output."""

import sys
from collections.abc import Iterable, Sequence

from pydantic import TypeAdapter
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.cli.printable import printable, printable_lines
from services.cli.program import as_typed

_ANY: TypeAdapter[object] = TypeAdapter(object)

_FOLDED = 30
"""The last column may be folded to so many characters."""


class _Console(Console):
    """Rich's, but that a closed pipe is an error like any other: rich ends the process with exit code 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


out = _Console(soft_wrap=not sys.stdout.isatty())
"""Standard output: results for people; in a pipe no line is folded."""
err = _Console(stderr=True)
"""Standard error: progress and remarks."""


def say(text: str) -> None:
    """A line about what is being done, beside the result."""
    err.print(f"[dim]{escape(printable(as_typed(text)))}[/dim]", highlight=False, soft_wrap=True)


def hint(text: str) -> None:
    """A line of the result that names commands, as they are called here."""
    print_line(as_typed(text))


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


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None, least: Sequence[str] = ()
) -> None:
    """A table; cells are text, not markup, and never cut.

    In a pipe each row is one line of cells between tabs. On a terminal that is too narrow, the columns in `least` are left out, the
    least needed first, which a remark says; where that does not help, each cell is a line.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not out.is_terminal:
        if title:
            out.print(title, markup=False, highlight=False)
        for row in [list(columns), *cells]:
            line = "\t".join(printable(cell).replace("\t", "\\t") for cell in row)
            out.file.write(line + "\n")  # rich would make blanks of the tabs
        return
    shown = fitting(columns, cells, least, out.width)
    if shown is None:
        if title:
            out.print(title, markup=False, highlight=False)
        for number, row in enumerate(cells):
            if number:
                out.print()
            print_pairs((name, cell) for name, cell in zip(columns, row, strict=True) if cell)
        return
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for number in shown:
        table.add_column(columns[number], overflow="fold", no_wrap=number != shown[-1])
    for row in cells:
        table.add_row(*(escape(printable_lines(row[number])) for number in shown))
    out.print(table, soft_wrap=False)
    if hidden := [name for number, name in enumerate(columns) if number not in shown and any(row[number] for row in cells)]:
        say(f"Left out for want of width: {', '.join(hidden)}; a wider terminal, a pipe or --json has them.")


def fitting(
    columns: Sequence[str], rows: Sequence[Sequence[str]], least: Sequence[str], width: int
) -> tuple[int, ...] | None:
    """Numbers of the columns that a terminal of `width` characters has room for; None where not even the needed ones have.

    Only the last column may be folded, and is left enough: an id that is folded cannot be copied. Of those in `least`, empty ones go
    first, then in their order.
    """
    shown = list(range(len(columns)))
    empty = [name for name in least if not any(row[columns.index(name)] for row in rows)]
    for name in (None, *empty, *(name for name in least if name not in empty)):
        if name is not None:
            shown.remove(columns.index(name))
        widths = [max(_width(columns[number]), *(_width(row[number]) for row in rows), 0) for number in shown]
        room = width - 2 * (len(shown) - 1) - sum(widths[:-1])
        if room >= min(widths[-1], _FOLDED):
            return tuple(shown)
    return None


def _width(cell: str) -> int:
    return max(map(cell_len, cell.splitlines()), default=0)
