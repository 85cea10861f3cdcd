"""Lays tokens out on lines: those that are learnt apart from their context, in any width and without colours."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from rich.cells import cell_len

from services.cli.output import out
from services.cli.printable import printable

_BETWEEN = "|"
_MARKS = {True: "+ ", False: "  "}


class Token(Protocol):
    """A token's text, and whether it is learnt."""

    @property
    def text(self) -> str: ...

    @property
    def learnt(self) -> bool: ...


def token_lines(tokens: Iterable[Token]) -> Iterator[str]:
    """Yield lines of tokens. A line ends behind a line break, where learning begins or ends, and on a terminal at its width."""
    width = out.width if out.is_terminal else None
    line, learnt = "", False
    for token in tokens:
        text = printable(token.text.replace("\n", "\\n"))
        too_wide = width is not None and cell_len(line) + cell_len(text) + len(_BETWEEN) > width - len(_MARKS[learnt])
        if line and (token.learnt != learnt or line.endswith("\\n") or too_wide):
            yield _MARKS[learnt] + line
            line = ""
        learnt = token.learnt
        line += (_BETWEEN if line else "") + text
    if line:
        yield _MARKS[learnt] + line
