"""Help is plain: words for values, an example that can be copied, and no type of Python's."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.testing import CliRunner

from services.cli.main import app
from services.cli.program import COMMANDS

_PYTHON = re.compile(r"<[\w\[\] |]+>|\{[A-Z]|services\.|typing|Path\b|\bstr\b")


def _all(group: Any, named: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name in group.list_commands(typer.Context(group)):
        one = group.get_command(typer.Context(group), name)
        if isinstance(one, TyperGroup):
            yield from _all(one, (*named, name))
        else:
            yield (*named, name)


def _help(command: tuple[str, ...], columns: int) -> str:
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": str(columns)}, prog_name="neuroweaver")
    assert shown.exit_code == 0, shown.output
    return shown.stdout


EVERY = list(_all(typer.main.get_command(app)))


def test_the_commands_that_messages_may_name_are_those_that_there_are() -> None:
    assert {first for first, *_ in EVERY} == set(COMMANDS)


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_the_help_of_a_command_has_an_example_and_no_type_of_pythons(command: tuple[str, ...]) -> None:
    shown = _help(command, 80)
    text, _, example = shown.partition("Example:\n")
    assert f"neuroweaver {' '.join(command)}" in example
    assert not _PYTHON.search(text), text
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize("group", [(), *sorted({(first,) for first, *rest in EVERY if rest})], ids=" ".join)
def test_the_help_of_a_group_has_a_whole_sentence_for_each_command(group: tuple[str, ...]) -> None:
    listed = _help(group, 60).partition("Commands:\n")[2].partition("\n\n")[0]
    for command in EVERY:
        if command[:-1] == group:
            assert re.search(rf"^  {command[-1]} +[A-Z]", listed, re.MULTILINE)
    assert "..." not in listed
