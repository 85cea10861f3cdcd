"""`neuroweaver datasets erase`: no later job reads a row, its bytes are removed, and the versions that learnt from it are named."""

import time
from typing import Annotated

import typer

from services.cli.aliases import By, Json, Why, who
from services.cli.commands import Commands
from services.cli.edge import Edge
from services.cli.exits import Exit
from services.cli.job_refusal import refusals
from services.cli.output import print_json, print_line, print_table, say
from services.cli.program import as_typed
from services.cli.registered_data import dataset_path
from services.cli.row_digests import RowFile, digests_of
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.registry.datasets.views import DatasetView
from services.registry.erasing.views import Erasure, LearntVersion

app = Commands()
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.5


@app.command(
    example='neuroweaver datasets erase --row row.jsonl --reason "A customer asked for it." --dry-run\n'
    'neuroweaver datasets erase --digest 5f0c…d1 --reason "A customer asked for it."'
)
def erase(
    reason: Why,
    row: RowFile = None,
    digest: Annotated[str | None, typer.Option(help="Digest of the row.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="A data set that must have the rows, so that a slip is refused.", metavar="NAME@DIGEST"),
    ] = None,
    by: By = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be erased.")] = False,
    json: Json = False,
) -> None:
    """Erase rows from what later jobs read. Exit code 4 for rows that no data set has, 1 where something is not done yet.

    Nothing is unlearnt: the versions that learnt from the rows are named, with the command that trains each without them.
    """
    body = {"rows": digests_of(row, digest), "dataset": dataset, "by": who(by), "reason": reason, "dry_run": dry_run}
    with http_address(CliSettings()) as address, Edge(address) as edge:
        with refusals(json):
            erased = edge.post(Erasure, "/erasures", body)
        left = [] if dry_run else _left(edge, erased)
    if json:
        print_json({**erased.model_dump(mode="json"), "removing": left})
    else:
        _print(erased, left)
    if left or not erased.complete:
        raise typer.Exit(Exit.FAILED)


def _left(edge: Edge, erased: Erasure) -> list[str]:
    """Wait until the bytes are removed, for a limited time, and return the data sets of which they are not."""
    until = time.monotonic() + _PATIENCE_SECONDS
    left = sorted({one.dataset for one in erased.found})
    while left := [one for one in left if edge.get(DatasetView, dataset_path(one)).erasing]:
        if time.monotonic() > until:
            break
        time.sleep(_POLL_SECONDS)
    return left


def _print(erased: Erasure, left: list[str]) -> None:
    done = "would be erased" if erased.id is None else "are erased"
    print_line(f"{len(erased.rows)} rows {done}")
    print_table(("data set", "split", "row"), [(one.dataset, one.split, one.row) for one in erased.found])
    for one in left:
        say(f"NOT REMOVED YET: bytes of {one}; the registry goes on, and neuroweaver datasets show says when it is done")
    for remark in erased.remarks:
        say(f"NOT DONE: {remark}")
    if not erased.versions:
        say("No version learnt from them.")
        return
    rows = [
        (one.id, one.rows, ", ".join(one.aliases), ", ".join(one.deployments), one.through or "its own job")
        for one in erased.versions
    ]
    title = "\nVersions that learnt from them, and keep what they learnt"
    print_table(("version", "rows", "aliases", "deployments", "through"), rows, title=title)
    print_line()
    print_line("Each is made again without the rows by")
    for version in erased.versions:
        print_line(f"  {as_typed(_retraining(version))}")


def _retraining(version: LearntVersion) -> str:
    start = f" --base-model {version.through.partition('@')[0]}@NEW_VERSION" if version.through else ""
    return f"neuroweaver jobs again {version.job_id}{start}"
