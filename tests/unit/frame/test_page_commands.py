"""The pages that people read name only commands, options, modules, make targets and folders that exist in this commit."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperCommand, TyperGroup

from services.cli.main import app

_ROOT = Path(__file__).parents[3]
_PAGES = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/**/*.md"), *_ROOT.glob("examples/**/*.md")])
_OF_WHAT_IS_THERE = [page for page in _PAGES if page.parent.name != "how-to"]
"""A how-to also names folders that its reader is about to make."""
_CODE = re.compile(r"^```\w*\n(.*?)^```|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
_END_OF_COMMAND = re.compile(r"\||&&|;|#|\)|<<?")
_PROGRAM = re.compile(r"(?:^|[\s(])(?:\.venv/bin/)?neuroweaver((?: +\S+)+)")
_MODULE = re.compile(r"python -m ([a-z_][\w.]*)")
_TARGET = re.compile(r"(?:^|`)make ([a-z][\w-]*)", re.MULTILINE)
_FOLDER = re.compile(r"`((?:services|schemas|tests|docs|examples|deploy|benchmarks)/[\w/.-]*)`")
_ROOT_COMMAND = typer.main.get_group(app)


def name_of(page: Path) -> str:
    return str(page.relative_to(_ROOT))


def code_of(page: Path) -> Iterator[str]:
    """Each line in a code block and each code span of a page."""
    for block, span in _CODE.findall(page.read_text()):
        yield from block.splitlines() if block else [span]


def commands_in(line: str) -> Iterator[list[str]]:
    """The words of each command of `neuroweaver` in a line of code, with or without the program's name."""
    for part in _END_OF_COMMAND.split(line):
        if found := _PROGRAM.search(part):
            yield found[1].split()
        elif (words := part.split())[1:] and isinstance(child(_ROOT_COMMAND, words[0]), TyperGroup):
            yield words


def child(command: TyperGroup, name: str) -> TyperGroup | TyperCommand | None:
    found = command.get_command(typer.Context(command), name)
    assert found is None or isinstance(found, TyperGroup | TyperCommand)
    return found


def fault_in(words: list[str]) -> str | None:
    """What in the words of a command does not exist; None if all of it does."""
    command: TyperGroup | TyperCommand = _ROOT_COMMAND
    for number, word in enumerate(words):
        sign, meant = getattr(command, "command_of_sign", None) or ("", "")
        if meant and isinstance(command, TyperGroup) and sign in word:
            command = child(command, meant) or command
        if not isinstance(command, TyperGroup) or not re.fullmatch(r"[a-z][a-z-]*", word):
            break
        found = child(command, word)
        if found is None:
            return " ".join(words[: number + 1])
        command = found
    known = {"--help", *(name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts))}
    options = re.findall(r"(?<![\w-])--[a-z][a-z-]*", " ".join(words))
    return next((f"{' '.join(words)}: {option}" for option in options if option not in known), None)


def test_a_command_an_option_and_a_group_that_do_not_exist_are_found() -> None:
    assert fault_in(["dlq", "retry"]) is None
    assert fault_in(["dlq", "mend"]) == "dlq mend"
    assert fault_in(["audit", "replay", "[--jobb", "JOB]"]) == "audit replay [--jobb JOB]: --jobb"
    assert fault_in(["evidence", "router@1.0.0", "--out", "DIR"]) is None
    assert fault_in(["evidence", "router@1.0.0", "--from"]) == "evidence router@1.0.0 --from: --from"
    assert list(commands_in("neuroweaver doctor && .venv/bin/neuroweaver topics apply | head")) == [
        ["doctor"],
        ["topics", "apply"],
    ]


@pytest.mark.parametrize("page", _PAGES, ids=name_of)
def test_every_command_and_option_that_a_page_names_exists(page: Path) -> None:
    named = [words for line in code_of(page) for words in commands_in(line)]
    assert [fault for words in named if (fault := fault_in(words))] == []


@pytest.mark.parametrize("page", _PAGES, ids=name_of)
def test_every_module_that_a_page_runs_exists(page: Path) -> None:
    named = {module.rstrip(".") for module in _MODULE.findall(page.read_text())}
    assert {module for module in named if importlib.util.find_spec(module) is None} == set()


@pytest.mark.parametrize("page", _PAGES, ids=name_of)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (_ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {target for line in code_of(page) for target in _TARGET.findall(line)} <= targets


@pytest.mark.parametrize("page", _OF_WHAT_IS_THERE, ids=name_of)
def test_every_folder_that_a_page_names_exists(page: Path) -> None:
    assert {name for name in _FOLDER.findall(page.read_text()) if not (_ROOT / name).exists()} == set()
