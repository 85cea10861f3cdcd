"""`neuroweaver projections`: what a service says against what the log says, and how to make the first follow from the
second."""

import asyncio
import getpass
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from schemas.steps import SERVICES
from services.chassis.replay import rebuild as replay
from services.chassis.replay.compare import RowDifference
from services.chassis.replay.projection import Projection
from services.chassis.replay.rebuild import OnProgress, Verification, engine_of
from services.chassis.replay.restore import Acceptance, restore
from services.chassis.replay.row import rebuild_row, row_ref
from services.chassis.replay.status import ProjectionStatus, status
from services.cli.commands import Commands
from services.cli.exits import Exit
from services.cli.output import err, hint, out, print_json, print_table, say
from services.cli.printable import printable
from services.cli.serve import composed
from services.cli.service_names import known

app = Commands()

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
ServiceName = Annotated[str, typer.Argument(help="orchestrator, trainer, feedback or registry.", metavar="SERVICE")]
AcceptIncomplete = Annotated[
    bool, typer.Option("--accept-incomplete", help="Continue although the log has lost its first records.")
]
_SHOWN_FIELDS = 8


@contextmanager
def projections(services: Iterable[str]) -> Iterator[list[Projection]]:
    """Yield the projections of `services`, on the servers that the settings name."""
    with composed(services) as built:
        yield [service.projection for service in built]


@app.command("status", example="neuroweaver projections status")
def show_status(
    services: Annotated[
        list[str] | None, typer.Argument(help="Services; all when none is named.", metavar="[SERVICE]...")
    ] = None,
    json: Json = False,
) -> None:
    """Show how far each projection has read the log, and what replays found."""
    with projections(known(services or SERVICES)) as wanted:
        found = [asyncio.run(status(projection)) for projection in wanted]
    if json:
        print_json(found)
    else:
        print_table(
            ("service", "rows", "lag", "last replay", "old versions"),
            [_status_row(item) for item in found],
            least=("old versions", "last replay"),
        )
        for item in found:
            for reason in dict.fromkeys(partition.stands for partition in item.partitions if partition.stands):
                hint(f"{item.service} has stopped: {reason}")


@app.command(example="neuroweaver projections verify orchestrator")
def verify(service: ServiceName, accept_incomplete: AcceptIncomplete = False, json: Json = False) -> None:
    """Compare a projection with the log, row by row, while it serves. Exit code 1 when a row differs."""
    with projections(known([service])) as (projection,), bar(service) as on_progress:
        found = asyncio.run(replay.verify(projection, accept_incomplete=accept_incomplete, on_progress=on_progress))
    if json:
        print_json(found)
    else:
        print_comparison(found)
    raise typer.Exit(int(Exit.FAILED if found.differences else Exit.OK))


@app.command(example="neuroweaver projections rebuild orchestrator --key support-2026-11")
def rebuild(
    service: ServiceName,
    key: Annotated[str | None, typer.Option(help="Only the row of this key, such as a job's id.")] = None,
    table: Annotated[str | None, typer.Option(help="Table of that row; optional if the projection has only one.")] = None,
    accept_incomplete: AcceptIncomplete = False,
    json: Json = False,
) -> None:
    """Rebuild a projection from the log while it serves, then swap it in; Ctrl-C changes nothing."""
    with projections(known([service])) as (projection,), bar(service) as on_progress:
        if key is not None:
            ref = row_ref(projection, key, table)
            changed = asyncio.run(
                rebuild_row(projection, ref, accept_incomplete=accept_incomplete, on_progress=on_progress)
            )
        else:
            found = asyncio.run(replay.rebuild(projection, accept_incomplete=accept_incomplete, on_progress=on_progress))
    if key is not None:
        if json:
            print_json({"service": service, "table": ref.aggregate, "key": ref.key, "changed": changed})
        else:
            out.print("The row differed from the log; it is corrected." if changed else "The row is as the log says.")
    elif json:
        print_json(found)
    else:
        print_comparison(found)
        hint(f"The previous version is in schema {found.old_version} until `neuroweaver projections drop {service}`.")


@app.command("restore", example="neuroweaver projections restore registry")
def restore_lost(
    service: ServiceName,
    accept_incomplete: Annotated[
        bool,
        typer.Option(
            "--accept-incomplete",
            help="Continue although the log has lost records, or own events cannot be folded. Recorded with the run.",
        ),
    ] = False,
    by: Annotated[str | None, typer.Option(help="Who accepts it; default: your user name.")] = None,
    json: Json = False,
) -> None:
    """Fill an empty database from the log, as the service does when it starts.

    Exit code 1 when there is nothing to restore.
    """
    accepted = Acceptance(by or getpass.getuser()) if accept_incomplete else None

    async def act() -> bool:
        async with engine_of(projection) as engine:
            return await restore(projection, engine, accepted)

    with projections(known([service])) as (projection,):
        done = asyncio.run(act())
    if json:
        print_json({"service": service, "restored": done})
    elif done:
        hint(f"Restored; `neuroweaver projections status {service}` shows what was skipped.")
    else:
        out.print(f"Nothing to restore: {service} has applied records already, or has never written to this log.")
    raise typer.Exit(int(Exit.OK if done else Exit.FAILED))


@app.command(example="neuroweaver projections drop orchestrator")
def drop(service: ServiceName, json: Json = False) -> None:
    """Remove the old versions of a projection that rebuilds left."""
    with projections(known([service])) as (projection,):
        names = asyncio.run(replay.drop_old(projection))
    if json:
        print_json({"service": service, "old_versions": names})
    else:
        out.print(f"Removed {', '.join(names)}." if names else "There is no old version.")


@contextmanager
def bar(service: str) -> Iterator[OnProgress]:
    """Show a progress bar with the remaining time on standard error."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        task = progress.add_task(service, total=None)
        yield lambda now: progress.update(
            task, description=f"{service}: {now.phase}", completed=now.done, total=now.total or None
        )


def print_comparison(found: Verification) -> None:
    """Print the tables with their digests, then the differences."""
    rows = [
        (table.table, table.rows, table.live_digest[:16], table.replayed_digest[:16], table.differences)
        for table in found.tables
    ]
    print_table(("table", "rows", "live", "from the log", "differences"), rows, least=("live", "from the log"))
    for table in found.tables:
        for difference in table.shown:
            _print_difference(difference)
        if len(table.shown) < table.differences:
            out.print(f"... and {table.differences - len(table.shown)} more rows of {table.table}")
    say(f"{found.service}: {found.records} records of the log, {found.rows} rows, {found.differences} differences")


def _print_difference(difference: RowDifference) -> None:
    words = {"missing": "is missing", "extra": "is not in the log", "changed": "differs"}[difference.kind]
    lines = [f"{difference.table} {difference.key} {words}"]
    for field in difference.fields[:_SHOWN_FIELDS]:
        lines += [f"  {field.field}", f"    - live: {field.live!r}", f"    + log:  {field.replayed!r}"]
    if len(difference.fields) > _SHOWN_FIELDS:
        lines.append(f"  ... and {len(difference.fields) - _SHOWN_FIELDS} more fields")
    for line in lines:
        out.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _status_row(found: ProjectionStatus) -> tuple[object, ...]:
    tables = ", ".join(f"{rows} {table}" for table, rows in found.tables.items())
    last = found.runs[0] if found.runs else None
    said = ""
    if last is not None:
        said = f"{last.kind} {last.state} {last.started_at:%Y-%m-%d %H:%M}"
        if last.state == "running":
            said += f", {last.phase}, {last.done}/{last.total}"
        elif last.result and "differences" in last.result:
            said += f", {last.result['differences']} differences"
    return found.service, tables, found.lag, said, ", ".join(found.old_versions)
