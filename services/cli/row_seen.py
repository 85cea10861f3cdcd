"""`neuroweaver datasets who-saw`: which trainings and versions saw a row."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from schemas.artifacts import SHA256_PATTERN
from schemas.row_digest import row_digest
from services.cli.commands import Commands
from services.cli.edge import Edge
from services.cli.exits import Exit, stop_with
from services.cli.output import print_json, print_line, print_table, say
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.registry.ledger.views import RowSeen

app = Commands()
_ROWS_AT_MOST = 100


@app.command(
    "who-saw",
    example="neuroweaver datasets who-saw --row row.jsonl\nneuroweaver datasets who-saw --digest 5f0c…d1 --dataset support",
)
def who_saw(
    row: Annotated[
        Path | None,
        typer.Option("--row", help=f"A file with the row, or with {_ROWS_AT_MOST} rows at most, as it was given."),
    ] = None,
    digest: Annotated[str | None, typer.Option(help="Digest of the row.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only data sets with this name.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show which trainings and versions learnt from a row. Exit code 1 where something could not be searched."""
    digests = _digests(row, digest)
    with http_address(CliSettings()) as address, Edge(address) as edge:
        found = [edge.get(RowSeen, f"/rows/{one}", dataset=dataset) for one in digests]
    if json:
        print_json(found)
    else:
        for number, one in enumerate(found):
            _print(one, first=not number)
    if not all(one.complete for one in found):
        raise typer.Exit(Exit.FAILED)


def _digests(row: Path | None, digest: str | None) -> list[str]:
    if (row is None) == (digest is None):
        stop_with(Exit.USAGE, "name either --row FILE or --digest DIGEST")
    if digest is not None:
        if not re.fullmatch(SHA256_PATTERN, digest.lower()):
            stop_with(Exit.USAGE, f"{digest} is no digest of a row: it has 64 hexadecimal digits")
        return [digest.lower()]
    assert row is not None
    found = list(islice(_rows(row), _ROWS_AT_MOST + 1))
    if not 0 < len(found) <= _ROWS_AT_MOST:
        what = f"more than {_ROWS_AT_MOST} rows" if found else "no row"
        stop_with(Exit.USAGE, f"{row} has {what}; name a file with the rows to look for")
    return list(dict.fromkeys(found))


def _rows(path: Path) -> Iterator[str]:
    """Yield the digest of each row of a file, which is read as a data set is."""
    try:
        from services.chassis.executor.child import UserFault
        from services.trainer.data.files import read_file
    except ImportError as error:
        stop_with(Exit.FAILED, f"{error}: to read rows on this machine, pip install 'neuroweaver[trainer]'")
    if not path.is_file():
        stop_with(Exit.USAGE, f"{path} is no file; name one with the row")
    try:
        for raw in read_file(path, "jsonl"):
            if raw.fault is not None:
                stop_with(Exit.USAGE, f"{raw.place}: {raw.fault}")
            yield row_digest(raw.values)
    except UserFault as fault:
        stop_with(Exit.USAGE, "\n".join(map(str, fault.reasons)))


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
