"""`neuroweaver jobs`: whatever can be done with a job over HTTP, for people and, with --json, for programs."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from schemas.requests import JobCancelRequested
from schemas.results import REPORT
from services.chassis.executor.folders import folder_name
from services.cli import again, job_controls
from services.cli.commands import Commands
from services.cli.edge import Edge
from services.cli.exits import Exit, stop_with
from services.cli.job_check import examine_only
from services.cli.job_file import NoRequest, read_request
from services.cli.job_logs import JobLogs
from services.cli.job_refusal import job_path as _path
from services.cli.job_refusal import print_reasons as _print_reasons
from services.cli.job_refusal import refusals
from services.cli.job_text import moment_text, print_job
from services.cli.job_watch import wait_until_read, watch_job
from services.cli.log_screen import LogScreen
from services.cli.memory_estimate import show_estimate
from services.cli.output import print_json, print_pairs, print_table, say
from services.cli.printable import printable
from services.cli.program import as_typed
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.orchestrator.domain.state import ENDED, Status
from services.orchestrator.domain.validation import RejectedRequest as Invalid
from services.orchestrator.domain.validation import examine
from services.orchestrator.views import JobDetail, JobPage, JobSummary, JobView, StepView

app = Commands()
app.add_typer(job_controls.app)
app.add_typer(again.app)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]
_PAGE = 200
_LEAST = ("requester", "pipeline", "requested", "model", "version", "steps")
"""Columns that a narrow terminal leaves out, the least needed first."""


@app.command(example="neuroweaver jobs submit job.json --dry-run\nneuroweaver jobs submit job.json --watch")
def submit(
    file: Annotated[Path, typer.Argument(help="The request in JSON or YAML; - reads standard input.", metavar="FILE")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only validate it and show its plan; nothing is started.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show the job's progress until it has ended.")] = False,
    json: Json = False,
) -> None:
    """Start a job. Exit code 1 when it is refused, or, with --watch, when it does not complete."""
    try:
        request = read_request(file)
    except NoRequest as error:
        stop_with(Exit.USAGE, str(error))
    if dry_run:
        examine_only(request, json)
        return
    with http_address(CliSettings()) as address, Edge(address) as edge:
        with refusals(json):
            job = edge.post(JobView, "/training/start", request)
        if job.status in ENDED:  # a job that was started just now cannot have ended
            say(f"job {job.job_id} was requested before with the same content and is {job.status}: nothing was started")
            say(job.failure.remedy if job.failure else "to run it again, give it another job_id, or leave job_id out")
        if watch:
            watch_job(edge, wait_until_read(edge, job.job_id), json)
        elif json:
            print_json(job)
        else:
            print_pairs(
                (("job", job.job_id), ("status", job.status), ("watch", as_typed(f"neuroweaver jobs watch {job.job_id}")))
            )


@app.command(example="neuroweaver jobs estimate job.json")
def estimate(
    file: Annotated[Path, typer.Argument(help="The request in JSON or YAML; - reads standard input.", metavar="FILE")],
    json: Json = False,
) -> None:
    """Estimate the memory of each step that loads a model, on this machine, without starting the job. Exit code 1 when it does not suffice."""
    try:
        request = read_request(file)
    except NoRequest as error:
        stop_with(Exit.USAGE, str(error))
    examined = examine(request, (), datetime.now(UTC))
    if isinstance(examined, Invalid):
        _print_reasons(examined.reasons)
        raise typer.Exit(int(Exit.FAILED))
    show_estimate(examined.request, examined.plan, json=json)


@app.command("list", example="neuroweaver jobs list --status failed --limit 50")
def list_jobs(
    status: Annotated[
        Status | None, typer.Option(help="Only jobs of this status, for example paused.", metavar="STATUS")
    ] = None,
    requester: Annotated[str | None, typer.Option(help="Only jobs of this requester.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs for this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most jobs to list.")] = 20,
    json: Json = False,
) -> None:
    """List jobs, the newest first."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        jobs = _pages(edge, limit, status=status, requester=requester, model=model)
    if json:
        print_json(jobs)
        return
    columns = ("job", "status", "pipeline", "steps", "model", "version", "requester", "requested")
    print_table(columns, [_row(job) for job in jobs], least=_LEAST)
    if not jobs:
        say("None: no job was requested, or none matches the options.")


@app.command("show", example="neuroweaver jobs show support-2026-11")
def show_job(job_id: JobId, json: Json = False) -> None:
    """Show a job with its steps. Exit code 4 when it does not exist."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        job = edge.get(JobDetail, _path(job_id))
    if json:
        print_json(job)
    else:
        print_job(job)


@app.command(example="neuroweaver jobs watch support-2026-11")
def watch(job_id: JobId, json: Json = False) -> None:
    """Show a job's progress until it has ended.

    Exit code 0 when it completed, 1 when it did not, 4 when it does not exist.
    """
    with http_address(CliSettings()) as address, Edge(address) as edge:
        watch_job(edge, edge.get(JobView, _path(job_id)), json)


@app.command(example="neuroweaver jobs logs support-2026-11 --step train --follow")
def logs(
    job_id: JobId,
    step: Annotated[str | None, typer.Option(help="Only this step.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show new lines until the job, or the step, has ended.")
    ] = False,
    lines: Annotated[int, typer.Option(min=1, help="The most lines of each log that are there already.")] = 50,
    json: Json = False,
) -> None:
    """Show the last log lines of all attempts: running, completed and failed. Exit code 4 when the job or step does not exist.

    With --follow and --json one JSON object per line.
    """
    with http_address(CliSettings()) as address, Edge(address) as edge:
        job = edge.get(JobView, _path(job_id))
        if step is not None and step not in {known.name for known in job.steps}:
            names = ", ".join(known.name for known in job.steps)
            stop_with(Exit.NOT_FOUND, f"job {job_id} has no step {step!r}; its steps: {names}")
        found = JobLogs(edge, job_id, step, lines)
        shown = LogScreen(job, json=json, each=follow)
        try:
            for log in found.follow(job) if follow else found.news(job):
                shown.show(log)
        except KeyboardInterrupt:
            say(f"no longer following; the job continues: neuroweaver jobs watch {job_id}")
            raise typer.Exit(int(Exit.INTERRUPTED)) from None
        shown.end()


@app.command(example="neuroweaver jobs report support-2026-11 --step train")
def report(
    job_id: JobId,
    step: Annotated[str | None, typer.Option(help="Only this step.")] = None,
    folder: Annotated[
        Path, typer.Option(help="Folder for the files JOB-STEP.html; it must exist.", metavar="FOLDER")
    ] = Path(),
    json: Json = False,
) -> None:
    """Save the reports of steps that have completed or failed as HTML files. Exit code 4 when there is none."""
    if not folder.is_dir():
        stop_with(Exit.USAGE, f"{folder} is not a folder; name one that exists")
    with http_address(CliSettings()) as address, Edge(address) as edge:
        job = edge.get(JobView, _path(job_id))
        names = [known.name for known in job.steps if _reported(known)] if step is None else [step]
        if not names:
            stop_with(Exit.NOT_FOUND, f"no step of job {job_id} has left a report yet; the job is {job.status}")
        saved = {name: folder / f"{folder_name(f'{job_id}-{name}')}.html" for name in names}
        for name, file in saved.items():
            file.write_text(edge.text(f"{_path(job_id)}/steps/{quote(name, safe='')}/report"), encoding="utf-8")
    if json:
        print_json({name: str(file.resolve()) for name, file in saved.items()})
    else:
        print_pairs((name, file.resolve()) for name, file in saved.items())


@app.command(example='neuroweaver jobs cancel support-2026-11 --reason "wrong data"')
def cancel(
    job_id: JobId,
    reason: Annotated[str, typer.Option(help="Why the job is cancelled.", metavar="TEXT")] = "",
    json: Json = False,
) -> None:
    """Cancel a job. Exit code 1 when it has ended already, 4 when it does not exist."""
    limit = next(m.max_length for m in JobCancelRequested.model_fields["reason"].metadata if hasattr(m, "max_length"))
    if len(reason) > limit:
        stop_with(Exit.USAGE, f"--reason has {len(reason)} characters; use at most {limit}")
    with http_address(CliSettings()) as address, Edge(address) as edge:
        job = edge.post(JobView, f"{_path(job_id)}/cancel", {"requester": "neuroweaver-cli", "reason": reason})
    if json:
        print_json(job)
    else:
        print_pairs((("job", job.job_id), ("status", job.status)))


def _reported(step: StepView) -> bool:
    failed = any(attempt.fault and attempt.fault.report for attempt in step.attempts)
    return REPORT in step.outputs or (step.status != "completed" and failed)


def _pages(edge: Edge, limit: int, **filters: str | None) -> list[JobSummary]:
    jobs: list[JobSummary] = []
    cursor: str | None = None
    while len(jobs) < limit:
        page = edge.get(JobPage, "/training", limit=min(_PAGE, limit - len(jobs)), cursor=cursor, **filters)
        jobs += page.items
        cursor = page.next
        if cursor is None:
            break
    return jobs


def _row(job: JobSummary) -> tuple[object, ...]:
    steps = "" if job.steps is None else f"{job.steps_done}/{job.steps}"
    texts = (
        job.job_id,
        job.status,
        job.pipeline,
        steps,
        job.model,
        job.version,
        job.requester,
        moment_text(job.requested_at),
    )
    return tuple(printable(text or "") for text in texts)
