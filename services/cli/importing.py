"""`neuroweaver models import`: registers an adapter or a whole model that was made elsewhere, by a job with the preset `import`."""

import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.requests import IMPORT
from services.cli.aliases import By, Json, who
from services.cli.commands import Commands
from services.cli.edge import Edge
from services.cli.exits import Exit
from services.cli.job_refusal import refusals
from services.cli.job_screen import screen
from services.cli.job_text import print_end
from services.cli.job_watch import followed, wait_until_read
from services.cli.output import err, print_json, print_pairs, say
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.cli.versions import model_path, version_of
from services.orchestrator.views import JobView
from services.registry.views import VersionView

app = Commands()


@app.command(
    "import", example="neuroweaver models import ./adapter support-router --base HuggingFaceTB/SmolLM2-135M-Instruct"
)
def import_version(
    source: Annotated[str, typer.Argument(help="Folder, s3:// URI or hub id, in Hugging Face layout.", metavar="SOURCE")],
    name: Annotated[str, typer.Argument(help="Name of the model that gets the version.", metavar="NAME")],
    base: Annotated[
        str | None,
        typer.Option(help="Base model of an adapter: folder, s3:// URI, hub id or NAME@VERSION.", metavar="MODEL"),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Data set on whose test split it is measured; default: it is not measured.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="Its number; default: the registry numbers it.")] = None,
    alias: Annotated[str | None, typer.Option(help="Alias that moves to it, through its gates; default: none.")] = None,
    by: By = None,
    json: Json = False,
) -> None:
    """Check an adapter or a whole model that was made elsewhere, copy its files and register them. Exit code 1 when it is refused."""
    where = _reference(source)
    request: dict[str, Any] = {
        "job_id": f"import-{uuid.uuid4().hex[:12]}", "requester": who(by), "pipeline": IMPORT, "import_from": where,
        "base_model": where if base is None else _reference(base), "register_as": name, "register_version": version, "alias": alias,
        **({} if dataset is None else {"dataset": {"reference": _reference(dataset)}}),
    }  # fmt: skip
    with http_address(CliSettings()) as address, Edge(address) as edge:
        before = edge.find(VersionView, model_path(name))
        with refusals(json):
            started = edge.post(JobView, "/training/start", request)
        job = followed(edge, wait_until_read(edge, started.job_id), screen(err, json=False))
        if job.status != "completed":
            print_json(job) if json else print_end(job)
            raise typer.Exit(int(Exit.FAILED))
        made = version_of(edge, f"{job.model}@{job.version}")
    if before is not None and before.artifact.sha256 == made.artifact.sha256:
        say(f"the files are those of {before.id}: {made.id} is another version of the same model")
    if json:
        print_json(made)
    else:
        _print(made)


def _print(made: VersionView) -> None:
    imported = made.lineage.imported
    print_pairs(
        (
            ("model", made.id), ("kind", made.kind), ("imported from", imported and imported.source),
            ("revision", imported and imported.revision), ("licence", imported and imported.licence),
            ("base model", made.lineage.base_model), ("sha256", made.artifact.sha256), ("job", made.lineage.job_id),
        )
    )  # fmt: skip


def _reference(given: str) -> str:
    """Return a path of this machine as the services find it, whatever their working folder; any other reference as it is."""
    path = Path(given).expanduser()
    return str(path.resolve()) if path.exists() else given
