"""`neuroweaver datasets who-saw`: which trainings and versions saw a row."""

from typing import Annotated

import typer

from services.cli.commands import Commands
from services.cli.edge import Edge
from services.cli.exits import Exit
from services.cli.output import print_json, print_line, print_table, say
from services.cli.row_digests import RowFile, digests_of
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.registry.ledger.views import RowSeen

app = Commands()


@app.command(
    "who-saw",
    example="neuroweaver datasets who-saw --row row.jsonl\nneuroweaver datasets who-saw --digest 5f0c…d1 --dataset support",
)
def who_saw(
    row: RowFile = None,
    digest: Annotated[str | None, typer.Option(help="Digest of the row.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only data sets with this name.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show which trainings and versions learnt from a row. Exit code 1 where something could not be searched."""
    digests = digests_of(row, digest)
    with http_address(CliSettings()) as address, Edge(address) as edge:
        found = [edge.get(RowSeen, f"/rows/{one}", dataset=dataset) for one in digests]
    if json:
        print_json(found)
    else:
        for number, one in enumerate(found):
            _print(one, first=not number)
    if not all(one.complete for one in found):
        raise typer.Exit(Exit.FAILED)


def _print(seen: RowSeen, *, first: bool) -> None:
    if not first:
        print_line()
    print_line(f"row {seen.digest}")
    if seen.found:
        print_table(("data set", "split", "row"), [(one.dataset, one.split, one.row) for one in seen.found])
    else:
        say("It is in no data set that was searched.")
    if seen.steps:
        steps = [(one.job_id, one.step, one.attempt, one.row, one.times) for one in seen.steps]
        print_table(("job", "step", "attempt", "row", "times"), steps, title="\nTrainings that learnt from it")
    elif seen.found:
        say("No training learnt from it.")
    if seen.versions:
        versions = [
            (one.id, ", ".join(one.aliases), ", ".join(one.deployments), one.through or "its own job")
            for one in seen.versions
        ]
        print_table(("version", "aliases", "deployments", "through"), versions, title="\nVersions that learnt from it")
    for remark in seen.remarks:
        say(f"NOT SEARCHED: {remark}")
