"""Why: exit codes that mean something, the same for every command."""

import sys
from enum import IntEnum
from typing import NoReturn

from services.cli.printable import printable_lines


class Exit(IntEnum):
    """What a command's exit code says. Scripts rely on them: none changes its meaning."""

    OK = 0
    FAILED = 1
    """It was tried and did not work out: a failed job, a finding of `doctor`, a conflict."""
    USAGE = 2
    """The command or its input is not valid; nothing was tried."""
    UNREACHABLE = 3
    """A service, broker or database does not answer, or no stack runs."""
    NOT_FOUND = 4
    """What was asked for by name does not exist."""
    INTERRUPTED = 130
    """Ctrl-C, as shells have it."""


EXIT_CODES = "\n\n".join(
    (
        "Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 not reachable, 4 not found, 130 interrupted.",
        "Settings come from NEUROWEAVER_* variables; commands that need the development stack start it and stop it again.",
    )
)


def stop_with(code: Exit, message: str) -> NoReturn:
    """End the command: the message for a person goes to standard error."""
    print(f"neuroweaver: {printable_lines(message)}", file=sys.stderr)
    raise SystemExit(int(code))
