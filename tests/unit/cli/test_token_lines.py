"""Tokens that are learnt stand on lines of their own, in a pipe and on terminals of any width."""

from typing import NamedTuple

import pytest
from rich.cells import cell_len
from rich.console import Console

from services.cli import token_lines as module
from services.cli.token_lines import token_lines


class Token(NamedTuple):
    text: str
    learnt: bool


CONTEXT = [Token(text, False) for text in ("<user>", "\n", "Is", " it", " open", "?")]
ANSWER = [Token(text, True) for text in ("Yes", ".", "<end>")]


def test_in_a_pipe_lines_end_at_line_breaks_and_where_learning_begins() -> None:
    assert list(token_lines([*CONTEXT, *ANSWER])) == ["  <user>|\\n", "  Is| it| open|?", "+ Yes|.|<end>"]


@pytest.mark.parametrize("width", [60, 80])
def test_on_a_terminal_no_line_is_wider_and_none_loses_its_mark(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setattr(module, "out", Console(force_terminal=True, width=width))
    lines = list(token_lines([Token(f"wörd🙂{number} ", True) for number in range(50)]))
    assert len(lines) > 3
    assert all(cell_len(line) <= width and line.startswith("+ ") for line in lines)


def test_what_would_steer_a_terminal_is_escaped() -> None:
    assert list(token_lines([Token("\x1b[2J\r", False)])) == ["  \\x1b[2J\\r"]


def test_no_tokens_are_no_lines() -> None:
    assert list(token_lines([])) == []
