"""Text of others never steers the reader's terminal, whichever way a command prints it."""

import io

import pytest
from rich.console import Console

from services.cli import output
from services.cli.exits import Exit, stop_with
from services.cli.output import print_line, print_pairs, print_table, print_text, say

HOSTILE = "a\x1b]0;title\x07\x1b[2Jb\x9bc\r"


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_that_is_printed_steers_a_terminal(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=300, color_system=None)
    monkeypatch.setattr(output, "out", console)
    monkeypatch.setattr(output, "err", console)
    print_pairs((("name", HOSTILE),))
    print_table(("column",), [(HOSTILE,)])
    print_table(("column",) * 20, [(HOSTILE,) * 20])
    print_line(HOSTILE)
    print_text(HOSTILE)
    say(HOSTILE)
    printed = written.getvalue().replace("\x1b[2m", "").replace("\x1b[0m", "")  # dimmed by `say`
    assert printed.count("\\x1b[2Jb") == 25
    assert not {"\x1b", "\x07", "\x9b", "\r"} & set(printed)


def test_what_a_command_ends_with_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        stop_with(Exit.FAILED, f"{HOSTILE}\nsecond line")
    assert capsys.readouterr().err == "neuroweaver: a\\x1b]0;title\\x07\\x1b[2Jb\\x9bc\\r\nsecond line\n"


def test_lines_of_a_text_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    print_text("one\ntwo")
    assert capsys.readouterr().out.splitlines() == ["one", "two"]
