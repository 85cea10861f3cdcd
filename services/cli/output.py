"""Tables for people on a terminal, lines of cells in a pipe, JSON for programs, and never a mix of them on standard
output."""

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
"""The least width of the last column, in characters, to which it may be folded."""


class _Console(Console):
    """A Rich console that raises an error for a closed pipe; Rich itself would end the process with exit code 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


out = _Console(soft_wrap=not sys.stdout.isatty())
"""Standard output, for results; in a pipe no line is folded."""
err = _Console(stderr=True)
"""Standard error, for progress and remarks."""


def say(text: str) -> None:
    """Print a line about progress to standard error."""
    err.print(f"[dim]{escape(printable(as_typed(text)))}[/dim]", highlight=False, soft_wrap=True)


def hint(text: str) -> None:
    """Print a line of the result, with commands as they are called here."""
    print_line(as_typed(text))


def print_text(text: str) -> None:
    """Print text from events with its lines, escaped for the terminal."""
    out.print(printable_lines(text), markup=False, highlight=False, soft_wrap=True)


def print_line(text: str = "") -> None:
    """Print a whole line that may contain text from events, so that it can be copied."""
    out.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    """Print a result for programs: pydantic models, dataclasses or plain values."""
    sys.stdout.write(_ANY.dump_json(value, indent=2).decode() + "\n")


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one whole pair on each line, so that they can be copied."""
    known = [(name, value) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in known), default=0) + 2
    for name, value in known:
        out.print(f"{name:<{width}}{printable(str(value))}", markup=False, highlight=False, soft_wrap=True)


def brief(text: str, limit: int) -> str:
    """Return the shortened text on a terminal, with a mark where it was cut, and the whole text in a pipe."""
    return text if len(text) <= limit or not out.is_terminal else text[:limit] + "…"


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None, least: Sequence[str] = ()
) -> None:
    """Print a table; cells are text, not markup, and never cut.

    In a pipe each row is one line of cells between tabs. On a terminal that is too narrow, the columns in `least` are left
    out, the least needed first, and a remark names them; if the rest is still too wide, each cell becomes a line.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not out.is_terminal:
        if title:
            out.print(title, markup=False, highlight=False)
        for row in [list(columns), *cells]:
            line = "\t".join(printable(cell).replace("\t", "\\t") for cell in row)
            out.file.write(line + "\n")  # Rich would replace the tabs by blanks
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
        say(f"Left out because the terminal is narrow: {', '.join(hidden)}; a wider terminal, a pipe or --json shows them.")


def fitting(
    columns: Sequence[str], rows: Sequence[Sequence[str]], least: Sequence[str], width: int
) -> tuple[int, ...] | None:
    """Return the indexes of the columns that fit into `width` characters; None if even the needed ones do not fit.

    Only the last column may be folded, to a minimum width, because a folded id cannot be copied. Of the columns in `least`,
    empty ones are left out first, then the others in their order.
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
