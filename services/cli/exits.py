"""Exit codes that mean something, the same for every command, and how a command ends that does not do what was asked."""

import json
import sys
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NoReturn

from services.cli.printable import printable_lines
from services.cli.program import as_typed


class Exit(IntEnum):
    """Exit codes of the commands. Scripts rely on them, so their meanings never change."""

    OK = 0
    FAILED = 1
    """The command ran and failed: a failed job, a finding of `doctor`, a conflict."""
    USAGE = 2
    """The command or its input is not valid; nothing was done."""
    UNREACHABLE = 3
    """A service, broker or database does not answer, or no stack is running."""
    NOT_FOUND = 4
    """The named thing does not exist."""
    INTERRUPTED = 130
    """Ctrl-C ended the command; the code is the shells' convention."""
    NOBODY_READS = 141
    """The reader of standard output closed it (SIGPIPE in shells): `neuroweaver topics read TOPIC | head -1`."""


_TITLES = {
    Exit.FAILED: "Failed",
    Exit.USAGE: "Wrong usage or input",
    Exit.UNREACHABLE: "Not reachable",
    Exit.NOT_FOUND: "Not found",
    Exit.INTERRUPTED: "Interrupted",
}
EXIT_CODES = "\n\n".join(
    (
        "Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 not reachable, 4 not found, 130 interrupted, "
        "141 the reader of the output has closed it. With --json, an error is one JSON object on standard output, with "
        "title, "
        "detail and exit.",
        "Settings come from NEUROWEAVER_* variables; commands that need the development stack start it and stop it again.",
    )
)


def wants_json() -> bool:
    """Return whether the command line requests JSON, even if it is otherwise invalid."""
    return "--json" in sys.argv[1:]


def stop_with(code: Exit, message: str, problem: Mapping[str, Any] | None = None) -> NoReturn:
    """End the command with a sentence on standard error or, with --json, with one object on standard output. The object
    includes the members of `problem`, the problem document of a service (RFC 9457).
    """
    said = as_typed(message)
    if wants_json():
        print_error(code, said, problem)
    else:
        print(f"neuroweaver: {printable_lines(said)}", file=sys.stderr)
    raise SystemExit(int(code))


def print_error(code: Exit, message: str, problem: Mapping[str, Any] | None = None) -> None:
    """Print one line of JSON, which may be the last of many."""
    said = {"title": _TITLES[code], "detail": message, **(problem or {}), "exit": int(code)}
    sys.stdout.write(json.dumps({name: as_typed(part) if isinstance(part, str) else part for name, part in said.items()}))
    sys.stdout.write("\n")
