"""`neuroweaver datasets list`, `show` and `versions`: which data sets are registered, and what was made from them."""

from typing import Annotated
from urllib.parse import quote

import typer

from schemas.datasets import PREFIX_AT_LEAST
from services.chassis.reports.metric_text import metric_texts, metrics_line
from services.cli.commands import Commands
from services.cli.edge import Edge
from services.cli.output import print_json, print_pairs, print_table, say
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.registry.datasets.views import DatasetPage, DatasetSummary, DatasetView
from services.registry.views import VersionPage

app = Commands()

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
DatasetId = Annotated[
    str,
    typer.Argument(
        help=f"NAME (the one registered last), or NAME@DIGEST with at least {PREFIX_AT_LEAST} digits.",
        metavar="NAME[@DIGEST]",
    ),
]


def dataset_path(dataset_id: str) -> str:
    """Return the route of a data set."""
    return f"/datasets/{quote(dataset_id, safe='')}"


@app.command("list", example="neuroweaver datasets list --name support")
def list_datasets(
    name: Annotated[str | None, typer.Option(help="Only versions of the data set with this name.")] = None,
    licence: Annotated[str | None, typer.Option(help="Only data sets with this licence.")] = None,
    job: Annotated[str | None, typer.Option(help="Only data sets that this job registered.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most data sets to list.")] = 20,
    json: Json = False,
) -> None:
    """List registered data sets, the newest first."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        found = edge.listed(DatasetPage, "/datasets", limit, name=name, licence=licence, job_id=job)
    if json:
        print_json(found)
        return
    print_table(
        ("data set", "rows", "licence", "registered", "by", "job"), [_row(one) for one in found], least=("by", "job")
    )
    if not found:
        say("None: no data set is registered, or none matches the options.")


@app.command(example="neuroweaver datasets show support")
def show(dataset_id: DatasetId, json: Json = False) -> None:
    """Show a data set with its statistics. Exit code 4 when it does not exist."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        found = edge.get(DatasetView, dataset_path(dataset_id))
    if json:
        print_json(found)
    else:
        _print(found)


@app.command(example="neuroweaver datasets versions support")
def versions(
    dataset_id: DatasetId,
    limit: Annotated[int, typer.Option(min=1, help="The most versions to list.")] = 20,
    json: Json = False,
) -> None:
    """List the versions of models that were made from a data set, the newest first. Exit code 4 when it does not exist."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        found = edge.listed(VersionPage, f"{dataset_path(dataset_id)}/versions", limit)
    if json:
        print_json(found)
        return
    rows = [
        (one.id, ", ".join(one.aliases), f"{one.registered_at.astimezone():%Y-%m-%d %H:%M:%S}", one.job_id, metrics_line(one.metrics))
        for one in found
    ]  # fmt: skip
    print_table(("model", "aliases", "registered", "job", "metrics"), rows, least=("metrics", "job"))
    if not found:
        say("None: no version was made from it.")


def _row(one: DatasetSummary) -> tuple[object, ...]:
    at = f"{one.registered_at.astimezone():%Y-%m-%d %H:%M:%S}"
    name = f"{one.name}@{one.sha256[:PREFIX_AT_LEAST]}"
    return (name, _rows(one), one.licence or "not known", at, one.registered_by, one.job_id)


def _rows(one: DatasetSummary) -> str:
    return ", ".join(f"{number:,} {split}" for split, number in one.rows.items())


def _print(found: DatasetView) -> None:
    print_pairs(
        (
            ("data set", found.id),
            ("rows", _rows(found)),
            ("source", found.source),
            ("reference", found.reference),
            ("licence", found.licence or "not known"),
            ("registered", f"{found.registered_at.astimezone():%Y-%m-%d %H:%M:%S %Z}"),
            ("registered by", found.registered_by),
            ("job", f"{found.job_id}, step {found.step}"),
            ("erased rows", f"{found.erased_rows:,}" if found.erased_rows else None),
            ("erasing", "bytes of erased rows are still to be removed" if found.erasing else None),
            ("layout", found.layout),
            ("notes", found.notes),
            ("artifact", found.artifact.uri),
            ("pairs or labels", found.preferences.uri if found.preferences else None),
            ("rows sha256", found.dataset_sha256),
        )
    )
    print_table(("metric", "value"), list(metric_texts(found.metrics)), title="\nStatistics")
