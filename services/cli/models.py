"""`neuroweaver models`: find versions over HTTP, fetch one with proof of every byte, and ask one something."""

import shutil
import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from services.chassis.reports.metric_text import metric_texts, metrics_line
from services.cli import aliases, approvals, comparing, deleting, descriptions, exporting, importing, policies, reproducing
from services.cli.commands import Commands
from services.cli.edge import Edge
from services.cli.exits import Exit, stop_with
from services.cli.job_refusal import job_path
from services.cli.output import print_json, print_pairs, print_table, print_text, say
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.cli.versions import files_of, version_of
from services.registry.queries import VersionState
from services.registry.views import VersionPage, VersionSummary, VersionView

app = Commands()
app.add_typer(aliases.app)
app.add_typer(approvals.app)
app.add_typer(comparing.app)
app.add_typer(policies.app)
app.add_typer(descriptions.app)
app.add_typer(deleting.app)
app.add_typer(reproducing.app)
app.add_typer(importing.app)
app.add_typer(exporting.app)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
ModelId = Annotated[
    str, typer.Argument(help="NAME (its highest version), NAME@VERSION or NAME@ALIAS.", metavar="NAME[@VERSION|@ALIAS]")
]


@app.command("list", example="neuroweaver models list --name support-router")
def list_models(
    name: Annotated[str | None, typer.Option(help="Only versions of this model.")] = None,
    alias: Annotated[str | None, typer.Option(help="Only versions that this alias names.")] = None,
    job: Annotated[str | None, typer.Option(help="Only versions that this job made.")] = None,
    started_from: Annotated[
        str | None, typer.Option(help="Only versions whose training started from this one, NAME@VERSION.")
    ] = None,
    state: Annotated[
        VersionState | None,
        typer.Option(
            help="Only versions in this state. Deleted ones are listed only where this or --filter asks for a state."
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--filter",
            help='Only versions that meet this condition, such as "metrics.exact_match >= 0.9 AND metrics.rows > 40".',
            metavar="CONDITION",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most versions to list.")] = 20,
    json: Json = False,
) -> None:
    """List versions, the newest first."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        asked = {"name": name, "alias": alias, "job_id": job, "started_from": started_from, "state": state, "filter": where}
        versions = edge.listed(VersionPage, "/models", limit, **asked)
    if json:
        print_json(versions)
    else:
        print_table(
            ("model", "purpose", "state", "aliases", "tags", "registered", "job", "metrics"),
            [_row(version) for version in versions],
            least=("registered", "metrics", "job", "tags"),
        )
        if not versions:
            say("None: no version is registered, or none matches the options.")


@app.command(example="neuroweaver models show support-router@1.0.0")
def show(model_id: ModelId, json: Json = False) -> None:
    """Show a version with its lineage. Exit code 4 when it does not exist."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        version = version_of(edge, model_id)
    if json:
        print_json(version)
    else:
        _print_version(version)


@app.command(example="neuroweaver models download support-router@1.0.0 ./support-router")
def download(
    model_id: ModelId,
    folder: Annotated[Path, typer.Argument(help="Target folder; it must not exist yet.", metavar="FOLDER")],
    json: Json = False,
) -> None:
    """Copy a version's files into a folder and check their digests. Exit code 4 when the version does not exist."""
    if folder.exists():
        stop_with(Exit.USAGE, f"{folder} exists already; name a new folder")
    settings = CliSettings()
    with http_address(settings) as address, Edge(address) as edge:
        version = version_of(edge, model_id)
    fetched = files_of(version, settings)
    beside = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    try:
        shutil.copytree(fetched, beside)
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    if json:
        print_json({"id": version.id, "folder": str(folder.resolve()), "sha256": version.artifact.sha256})
    else:
        print_pairs((("model", version.id), ("folder", folder.resolve()), ("sha256", version.artifact.sha256)))


@app.command("try", example='neuroweaver models try support-router "My laptop has not arrived."')
def try_model(
    model_id: ModelId,
    text: Annotated[str, typer.Argument(help="The prompt; - reads standard input.", metavar="TEXT")],
    system: Annotated[
        str | None, typer.Option(help="System prompt; default: the one that the job's data set sets for all rows.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, max=4096, help="The most new tokens.")] = 128,
    json: Json = False,
) -> None:
    """Answer a prompt with a registered version. Exit code 4 when the version does not exist."""
    from services.cli.trying import answer

    question = typer.get_text_stream("stdin").read() if text == "-" else text
    if not question.strip():
        stop_with(Exit.USAGE, "TEXT is empty; give the model a prompt")
    settings = CliSettings()
    with http_address(settings) as address, Edge(address) as edge:
        version = version_of(edge, model_id)
        if _scores(version):
            what = f"{version.id} is a reward model: it scores answers and writes none"
            stop_with(Exit.FAILED, f"{what}; name it as feedback.judge.reward_model of a job")
        prompt = _system_prompt(edge, version) if system is None else system
    say(f"loading {version.id}")
    reply = answer(version, files_of(version, settings), question, prompt, tokens)
    if json:
        print_json({"id": version.id, "text": question, "answer": reply})
    else:
        print_text(reply)


def _scores(version: VersionView) -> bool:
    return version.purpose == "scores"


def _system_prompt(edge: Edge, version: VersionView) -> str | None:
    """Return the system prompt of the job that made the version; None if it has none, or the job is unknown here."""
    job = edge.find(dict[str, Any], job_path(version.lineage.job_id)) or {}
    prompt = ((job.get("request") or {}).get("dataset") or {}).get("system_prompt")
    return prompt if isinstance(prompt, str) else None


def _row(version: VersionSummary) -> tuple[object, ...]:
    at = f"{version.registered_at.astimezone():%Y-%m-%d %H:%M:%S}"
    metrics = metrics_line(version.metrics) or "not evaluated"
    return (
        version.id,
        version.purpose,
        version.state,
        ", ".join(version.aliases),
        descriptions.tags_line(version.tags) or "",
        at,
        version.job_id,
        metrics,
    )


def _erased(version: VersionView) -> str | None:
    """Return what a version learnt from rows that are erased as one line; None for nothing."""
    found = (f"{one.rows:,} of {name}, {one.reason}" for name, one in sorted(version.erased.items()))
    return f"it learnt from {'; '.join(found)}" if version.erased else None


def _print_version(version: VersionView) -> None:
    lineage = version.lineage
    print_pairs(
        (
            ("model", version.id),
            ("purpose", "scores answers as a judge, and writes none" if _scores(version) else "writes answers"),
            ("state", descriptions.state_line(version)),
            ("erased rows", _erased(version)),
            ("aliases", ", ".join(version.aliases) or None),
            ("description", version.description or None),
            ("tags", descriptions.tags_line(version.tags)),
            ("registered", f"{version.registered_at.astimezone():%Y-%m-%d %H:%M:%S %Z}"),
            ("artifact", version.artifact.uri),
            ("files removed", version.files_removed_at and f"{version.files_removed_at.astimezone():%Y-%m-%d %H:%M:%S %Z}"),
            ("sha256", version.artifact.sha256),
            ("bytes", f"{version.artifact.size:,}"),
            ("kind", version.kind),
            (
                "evaluated",
                "yes" if version.evaluated else "no: no evaluate step of this version came before its registration",
            ),
            ("compressed from", version.parent.sha256 if version.parent else None),
            ("job", lineage.job_id),
            ("requester", lineage.requester),
            ("imported from", lineage.imported and lineage.imported.source),
            ("revision", lineage.imported and lineage.imported.revision),
            ("licence", lineage.imported and lineage.imported.licence),
            ("started from", lineage.started_from),
            ("base model", lineage.base_model),
            ("base sha256", lineage.base_model_sha256),
            ("data set", lineage.dataset),
            ("data sha256", lineage.dataset_sha256),
        )
    )
    _print_metrics(version)
    steps: list[tuple[Any, ...]] = [
        (
            name,
            ", ".join(f"{output} {ref.sha256[:12]}" for output, ref in result.outputs.items()),
            metrics_line(result.metrics),
        )
        for name, result in lineage.results.items()
    ]
    print_table(("step", "made", "metrics"), steps, title="\nHow it was made", least=("metrics",))


def _print_metrics(version: VersionView) -> None:
    """Print the metrics; of a compressed version beside those of its parent."""
    own = dict(metric_texts(version.metrics))
    if not version.parent:
        print_table(("metric", "value"), list(own.items()), title="\nMetrics")
        return
    parent = dict(metric_texts(version.parent_metrics))
    rows = [(name, own.get(name, ""), parent.get(name, "")) for name in dict.fromkeys((*own, *parent))]
    print_table(("metric", "value", "parent"), rows, title="\nMetrics")
