"""Why: `neuroweaver audit`: the commands of somebody who must answer for a model and trusts only the log."""

import typer

from schemas.steps import SERVICES
from services.cli.audit.verification import verdict_of, verify_all
from services.cli.exits import EXIT_CODES, Exit
from services.cli.output import print_json, print_table
from services.cli.projections import AcceptIncomplete, Json, print_comparison, projections

app = typer.Typer(no_args_is_help=True, epilog=EXIT_CODES)


@app.callback()
def audit() -> None:
    """Prove how each model came about."""


@app.command()
def verify(accept_incomplete: AcceptIncomplete = False, json: Json = False) -> None:
    """Compare every service's projection with the log, row by row. Exit code 1 when a row differs."""
    with projections(SERVICES) as wanted:
        found = verify_all(wanted, accept_incomplete=accept_incomplete)
    verdict = verdict_of(found)
    if json:
        print_json(verdict)
    else:
        for item in found:
            if item.differences:
                print_comparison(item)
        rows = [(name, item.tables, item.rows, item.differences) for name, item in verdict.services.items()]
        print_table(("service", "tables", "rows", "differences"), rows)
    raise typer.Exit(int(Exit.FAILED if verdict.differences else Exit.OK))
