"""How the program ends, whatever happens: known failures in one sentence and their exit code, and no traceback but for a
fault of ours."""

import os
import sys
from typing import Any

import typer

from services.chassis.process.redaction import redact_output
from services.cli.commands import NobodyReads
from services.cli.exits import Exit, print_error, stop_with, wants_json
from services.cli.program import NAME, program

_COMPLETION = ("--install-completion", "--show-completion")


def run_command(app: typer.Typer) -> None:
    """Run the command of the command line and end the process. No secret of the process is printed."""
    redact_output()
    code = 1
    try:
        try:
            code = _ended(typer.main.get_command(app))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        sys.stdout.flush()
    except (BrokenPipeError, NobodyReads):
        code = Exit.NOBODY_READS
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # discard what is still buffered
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    raise SystemExit(int(code))


def _ended(command: Any) -> int:
    """Return the exit code of the command. Raises SystemExit for other ends, and an unexplained error unchanged."""
    named = NAME if any(option in sys.argv for option in _COMPLETION) else program()
    try:
        code = command.main(prog_name=named, complete_var=f"_{NAME.upper()}_COMPLETE", standalone_mode=False)
        return code if isinstance(code, int) else Exit.OK
    except typer.Abort:
        stop_with(Exit.FAILED, "nothing was changed: the answer was not yes")
    except NobodyReads:
        raise
    except Exception as error:
        _usage(error)
        from services.cli.edge import RequestRefused
        from services.cli.failures import explain

        explained = explain(error)
        if explained is None:
            if wants_json():
                from services.chassis.process.transient import described

                print_error(Exit.FAILED, f"this is a bug of NeuroWeaver: {described(error)}")
            raise
        stop_with(*explained, error.problem if isinstance(error, RequestRefused) else None)


def _usage(error: Any) -> None:
    """End the program for an invalid command line, with the usage and the fault that Typer found."""
    if not (hasattr(error, "show") and hasattr(error, "exit_code")):
        return
    if wants_json():
        print_error(Exit.USAGE, error.format_message())
    else:
        error.show()
    raise SystemExit(error.exit_code)
