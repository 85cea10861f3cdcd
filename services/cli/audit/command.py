"""`neuroweaver audit`: the commands of somebody who must answer for a model and trusts only the log."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from schemas.steps import SERVICES
from services.audit.as_of import jobs_at, versions_at
from services.audit.causal_order import OrderedRecord, causal_groups
from services.audit.evidence import Unknown, evidence
from services.audit.export import OnProgress, export
from services.audit.selection import KEPT, InvalidSelection, InvalidTime, Selection, moment, records
from services.audit.summary import summarise
from services.audit.tracing import trace
from services.audit.verdict import NoExport, verify_export
from services.audit.verdict import against_log as compared
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel.log import UnknownTopic
from services.cli.audit.arguments import InvalidArgument, record_id, root
from services.cli.audit.arguments import digest as digest_of
from services.cli.audit.export_text import print_export, print_verdict
from services.cli.audit.history_text import LEGEND, history_lines
from services.cli.audit.trace_text import trace_lines
from services.cli.audit.verification import verdict_of, verify_all
from services.cli.commands import Commands
from services.cli.exits import Exit, stop_with
from services.cli.output import err, print_json, print_line, print_table, say
from services.cli.printable import printable
from services.cli.projections import AcceptIncomplete, Json, print_comparison, projections
from services.cli.settings import CliSettings
from services.cli.stack import broker
from services.cli.topic_reader import as_json
from services.orchestrator.views import JobView
from services.registry.views import VersionView

app = Commands()

Topics = Annotated[
    list[str] | None, typer.Option("--topic", help="May be repeated; default: all topics that are kept for ever.")
]
_HISTORY_RECORDS = 200_000
"""The most records of a history, which is sorted in memory."""


@app.callback()
def audit() -> None:
    """Prove how each model was made."""


@app.command(example="neuroweaver audit verify")
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


@app.command(example="neuroweaver audit replay --job support-2026-11")
def replay(
    topic: Topics = None,
    key: Annotated[str | None, typer.Option(help="Only records of this key.")] = None,
    job: Annotated[str | None, typer.Option(help="Only records about this job, on whatever topic.")] = None,
    begin: Annotated[
        str | None, typer.Option("--from", help="From this time on, such as 2026-01-31T12:00:00Z.", metavar="TIME")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Before this time.", metavar="TIME")] = None,
    first: Annotated[
        int | None, typer.Option("--from-offset", min=0, help="From this offset on; needs one --topic.")
    ] = None,
    last: Annotated[int | None, typer.Option("--to-offset", min=0, help="Below this offset; needs one --topic.")] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition; needs one --topic.")] = None,
    json: Json = False,
) -> None:
    """Print what the log contains, causes before effects; with --json, print one record a line in the order of the log,
    without a limit.

    Times are the broker's. The command changes no consumer group and no offset. Exit code 4 when the topic does not exist.
    """
    try:
        selection = Selection(
            topics=tuple(dict.fromkeys(topic)) if topic else KEPT,
            partition=partition,
            begin=moment(begin, "--from") if begin is not None else None,
            end=moment(end, "--to") if end is not None else None,
            first=first,
            last=last,
            key=key,
            job=job,
        )
        with broker(CliSettings()) as cluster:
            found = asyncio.run(_replay(cluster, selection, json))
    except (InvalidTime, InvalidSelection) as error:
        stop_with(Exit.USAGE, str(error))
    except UnknownTopic as error:
        stop_with(Exit.NOT_FOUND, str(error))
    if json:
        return
    for line in history_lines(causal_groups(found)):
        print_line(line)
    say(f"{len(found)} records. {LEGEND}" if found else "No record matches these filters.")


@app.command("trace", example="neuroweaver audit trace support-router@1.0.0")
def show_trace(
    target: Annotated[str, typer.Argument(help="A job's id, MODEL@VERSION or MODEL@ALIAS.", metavar="JOB|MODEL@VERSION")],
    json: Json = False,
) -> None:
    """Show how a model was made: every step with its configuration, digests and AI feedback, and the chain of causes.

    Exit code 1 when a link of the chain is missing, and names it; 4 when the log has no such job or version.
    """
    try:
        with broker(CliSettings()) as cluster:
            found = asyncio.run(evidence(cluster, target))
    except Unknown as error:
        stop_with(Exit.NOT_FOUND, printable(str(error)))
    made = trace(found.job_id, found.records, found.version)
    if json:
        print_json(made)
    else:
        for line in trace_lines(made):
            print_line(line)
    raise typer.Exit(int(Exit.OK if made.complete else Exit.FAILED))


@app.command("as-of", example="neuroweaver audit as-of 2026-11-01T12:00:00Z models")
def as_of(
    time: Annotated[str, typer.Argument(help="Time with its zone, such as 2026-01-31T12:00:00Z.", metavar="TIME")],
    what: Annotated[Literal["jobs", "models"], typer.Argument(help="What to show.", metavar="jobs|models")],
    key: Annotated[str | None, typer.Option(help="Only this job, or the versions of this model.")] = None,
    json: Json = False,
) -> None:
    """Show jobs or models as they were at a time: fold all records that the broker had appended by then.

    Exit code 4 when the log had no record of KEY by then.
    """
    try:
        at = moment(time, "TIME")
    except InvalidTime as error:
        stop_with(Exit.USAGE, str(error))
    jobs, versions = list[JobView](), list[VersionView]()
    with broker(CliSettings()) as cluster:
        if what == "jobs":
            jobs, result = asyncio.run(jobs_at(cluster, at, key))
        else:
            versions, result = asyncio.run(versions_at(cluster, at, key))
    if key is not None and not jobs and not versions:
        stop_with(
            Exit.NOT_FOUND, printable(f"--key {key}: the log knew no such {what.removesuffix('s')} at {at.isoformat()}")
        )
    if json:
        print_json(jobs if what == "jobs" else versions)
    elif what == "jobs":
        _print_jobs(jobs)
    else:
        _print_versions(versions)
    for remark in result.remarks:
        say(printable(remark))
    say(f"{result.records} records of the log")


@app.command("export", example="neuroweaver audit export --to export-2026-11")
def export_log(
    to: Annotated[
        Path,
        typer.Option(
            "--to", help="A folder that is empty, does not exist yet, or has an interrupted export.", metavar="DIR"
        ),
    ],
    topic: Topics = None,
    json: Json = False,
) -> None:
    """Write the log to Parquet files with a Merkle root for each partition. To continue an interrupted export, run the
    command again. Keep the printed roots, or the digest of the manifest, where nobody who can write to DIR can change them.
    """
    try:
        with broker(CliSettings()) as cluster, _bar() as on_progress:
            manifest, ended = asyncio.run(export(cluster, to, tuple(topic) if topic else KEPT, on_progress=on_progress))
    except UnknownTopic as error:
        stop_with(Exit.NOT_FOUND, str(error))
    print_export(to, manifest, json=json)
    if not ended:
        say(f"{to} is complete already; name another folder to export newer records")


@app.command("verify-export", example="neuroweaver audit verify-export export-2026-11 --against-log")
def show_verdict(
    folder: Annotated[Path, typer.Argument(help="Folder of an export.", metavar="DIR")],
    record: Annotated[
        str | None, typer.Option(help="Prove that the export contains this record.", metavar="TOPIC:PARTITION:OFFSET")
    ] = None,
    roots: Annotated[
        list[str] | None,
        typer.Option("--root", help="A root that you kept; may be repeated.", metavar="TOPIC:PARTITION=HEX"),
    ] = None,
    digest: Annotated[str | None, typer.Option(help="The manifest's digest that you kept.", metavar="HEX")] = None,
    against_log: Annotated[bool, typer.Option("--against-log", help="Compare the export with the log as well.")] = False,
    json: Json = False,
) -> None:
    """Find every record or file that was changed, removed, added or moved in an export since it was made; prove that it
    contains a record.

    Somebody who can change files and manifest together can forge both, so give the roots or the digest that you kept. Exit
    code 1 when something is found or the export is partial; 4 when DIR is not an export or does not contain the record.
    """
    try:
        wanted = record_id(record) if record is not None else None
        pinned = dict(root(text) for text in roots or ())
        kept = digest_of(digest) if digest is not None else None
        verdict = verify_export(folder, record=wanted, pinned=pinned, digest=kept)
    except InvalidArgument as error:
        stop_with(Exit.USAGE, str(error))
    except NoExport as error:
        stop_with(Exit.NOT_FOUND, str(error))
    if against_log:
        with broker(CliSettings()) as cluster:
            verdict = asyncio.run(compared(cluster, folder, verdict))
    print_verdict(folder, verdict, json=json)
    raise typer.Exit(int(Exit.OK if verdict.holds else Exit.FAILED))


async def _replay(cluster: Cluster, selection: Selection, json: bool) -> list[OrderedRecord]:
    """Return the records for a history, or print JSON lines at once and keep nothing."""
    found: list[OrderedRecord] = []
    async with records(cluster, selection) as selected:
        async for record in selected:
            if json:
                typer.echo(as_json(record))
            elif len(found) == _HISTORY_RECORDS:
                stop_with(
                    Exit.USAGE,
                    f"more than {_HISTORY_RECORDS} records are too many for a history; narrow the filters, or use --json",
                )
            else:
                found.append(summarise(record))
    return found


@contextmanager
def _bar() -> Iterator[OnProgress]:
    columns = (TextColumn("export"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task("export", total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


def _print_jobs(jobs: list[JobView]) -> None:
    rows = []
    for job in jobs:
        done = sum(step.status == "completed" for step in job.steps)
        made = f"{job.model}@{job.version}" if job.version else job.model
        requested = f"{job.requested_at:%Y-%m-%d %H:%M:%S}" if job.requested_at else ""
        cells = (job.job_id, job.status, job.pipeline, f"{done}/{len(job.steps)}", made, job.requester, requested)
        rows.append([printable(str(cell or "")) for cell in cells])
    print_table(
        ("job", "status", "pipeline", "steps", "model", "requester", "requested (UTC)"),
        rows,
        least=("requester", "pipeline", "requested (UTC)", "model", "steps"),
    )


def _print_versions(versions: list[VersionView]) -> None:
    rows = [
        (
            version.id,
            ", ".join(version.aliases),
            f"{version.registered_at:%Y-%m-%d %H:%M:%S}",
            version.lineage.job_id,
            version.artifact.sha256[:16],
        )
        for version in versions
    ]
    print_table(
        ("model", "aliases", "registered (UTC)", "job", "artifact"),
        [[printable(cell) for cell in row] for row in rows],
        least=("artifact", "registered (UTC)", "job"),
    )
