"""`neuroweaver jobs`: whatever can be done with a job over HTTP, for people and, with --json, for programs."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from schemas.requests import JobCancelRequested
from schemas.results import REPORT
from schemas.steps import PlannedStep
from services.chassis.executor.folders import folder_name
from services.cli import job_controls
from services.cli.commands import Commands
from services.cli.edge import Edge, RequestRefused
from services.cli.exits import Exit, stop_with
from services.cli.job_file import NoRequest, read_request
from services.cli.job_logs import JobLogs
from services.cli.job_refusal import job_path as _path
from services.cli.job_refusal import print_reasons as _print_reasons
from services.cli.job_refusal import refused as _refused
from services.cli.job_screen import screen, show
from services.cli.log_screen import LogScreen
from services.cli.memory_estimate import show_estimate
from services.cli.metric_text import metrics_line
from services.cli.output import err, out, print_json, print_pairs, print_table, say
from services.cli.printable import printable
from services.cli.program import as_typed
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.cli.step_lines import SIGNS
from services.orchestrator.domain.state import ENDED, Status
from services.orchestrator.domain.validation import RejectedRequest as Invalid
from services.orchestrator.domain.validation import examine
from services.orchestrator.views import JobDetail, JobPage, JobSummary, JobView

app = Commands()
app.add_typer(job_controls.app)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]
_PAGE = 200
_LOOK_SECONDS = 0.5
_NOT_CHECKED = (
    "whether job_id is free",
    "whether base_model and dataset exist and may be read",
    "whether the rows have the named columns",
    "whether a judge answers",
    "whether memory and disk suffice",
)
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
    except (NoRequest, OSError, UnicodeDecodeError) as error:
        stop_with(Exit.USAGE, str(error))
    if dry_run:
        _dry_run(request, json)
        return
    with http_address(CliSettings()) as address, Edge(address) as edge:
        try:
            job = edge.post(JobView, "/training/start", request)
        except RequestRefused as refusal:
            _refused(refusal, json)
        if job.status in ENDED:  # a job that was started just now cannot have ended
            say(f"job {job.job_id} was requested before with the same content and is {job.status}: nothing was started")
            say(job.failure.remedy if job.failure else "to run it again, give it another job_id, or leave job_id out")
        if watch:
            _watch(edge, wait_until_read(edge, job.job_id), json)
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
    """Estimate the memory of each training on this machine, without starting the job. Exit code 1 when it does not suffice."""
    try:
        request = read_request(file)
    except (NoRequest, OSError, UnicodeDecodeError) as error:
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


@app.command("show", example="neuroweaver jobs show support-2026-11")
def show_job(job_id: JobId, json: Json = False) -> None:
    """Show a job with its steps. Exit code 4 when it does not exist."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        job = edge.get(JobDetail, _path(job_id))
    if json:
        print_json(job)
    else:
        _print_job(job)


@app.command(example="neuroweaver jobs watch support-2026-11")
def watch(job_id: JobId, json: Json = False) -> None:
    """Show a job's progress until it has ended.

    Exit code 0 when it completed, 1 when it did not, 4 when it does not exist.
    """
    with http_address(CliSettings()) as address, Edge(address) as edge:
        _watch(edge, edge.get(JobView, _path(job_id)), json)


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
    """Save the reports of completed steps as HTML files. Exit code 4 when there is none."""
    if not folder.is_dir():
        stop_with(Exit.USAGE, f"{folder} is not a folder; name one that exists")
    with http_address(CliSettings()) as address, Edge(address) as edge:
        job = edge.get(JobView, _path(job_id))
        names = [known.name for known in job.steps if REPORT in known.outputs] if step is None else [step]
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
    texts = (job.job_id, job.status, job.pipeline, steps, job.model, job.version, job.requester, _time(job.requested_at))
    return tuple(printable(text or "") for text in texts)


def _dry_run(request: dict[str, Any], json: bool) -> None:
    examined = examine(request, (), datetime.now(UTC))
    if isinstance(examined, Invalid):
        if json:
            print_json({"valid": False, "reasons": examined.reasons})
        else:
            _print_reasons(examined.reasons)
        raise typer.Exit(int(Exit.FAILED))
    if json:
        print_json({"valid": True, "request": examined.request, "plan": examined.plan, "not_checked": _NOT_CHECKED})
        return
    print_table(
        ("step", "kind", "waits for", "reads"),
        [_plan_row(step) for step in examined.plan],
        least=("waits for",),
    )
    say("the request is valid; nothing was started")
    say(f"Not checked, because the services check it when the job runs: {'; '.join(_NOT_CHECKED)}.")


def _plan_row(step: PlannedStep) -> tuple[str, ...]:
    method = ""
    if step.settings.kind == "train":
        method = " (dpo)" if step.settings.preference else " (sft)"
    return step.name, step.kind + method, ", ".join(step.needs), ", ".join(step.inputs.values())


def wait_until_read(edge: Edge, job_id: str) -> JobView:
    """Wait until the orchestrator has read a request that it has just published, and return the job; until then it knows none."""
    waiting = False
    while True:
        try:
            return edge.get(JobView, _path(job_id))
        except RequestRefused as refusal:
            if refusal.exit != Exit.NOT_FOUND:
                raise
        if not waiting:
            say(
                f"the request is published; waiting until the orchestrator has read it. Later: neuroweaver jobs watch {job_id}"
            )
        waiting = True
        time.sleep(_LOOK_SECONDS)


def _watch(edge: Edge, job: JobView, json: bool) -> None:
    """Show the events of `job`, which `edge` has just returned: the stream of another program would never end."""
    try:
        with screen(out, json) as shown:
            for event in edge.stream(f"{_path(job.job_id)}/events"):
                job = show(shown, event) or job
    except KeyboardInterrupt:
        say(
            f"no longer watching; the job continues: neuroweaver jobs watch {job.job_id}, neuroweaver jobs cancel {job.job_id}"
        )
        raise typer.Exit(int(Exit.INTERRUPTED)) from None
    if not json:
        _print_end(job)
    raise typer.Exit(int(Exit.OK if job.status == "completed" else Exit.FAILED))


def _print_end(job: JobView) -> None:
    registered = f"{job.model} {job.version}" if job.version else None
    reason = job.cancel.reason if job.cancel and job.status == "cancelled" else None
    print_pairs((("job", job.job_id), ("status", job.status), ("registered", registered), ("reason", reason or None)))
    _print_reasons(job.reasons)
    if job.failure:
        where = f"step {job.failure.step}" if job.failure.step else "the job"
        err.print(printable(f"{where} failed ({job.failure.fault.cause}): {job.failure.fault.message}"), markup=False)
        _print_reasons(job.failure.fault.reasons)
        say(f"last lines of its log: neuroweaver jobs logs {job.job_id}")
        say(job.failure.remedy)


def _print_job(job: JobDetail) -> None:
    print_pairs(
        (
            ("job", job.job_id),
            ("status", job.status),
            ("requester", job.requester and printable(job.requester)),
            ("pipeline", job.pipeline and printable(job.pipeline)),
            ("model", job.model and printable(job.model)),
            ("version", job.version),
            ("priority", job.priority or None),
            ("requested", job.requested_at and _time(job.requested_at)),
            ("ended", job.ended_at and _time(job.ended_at)),
            ("deadline", job.deadline and _time(job.deadline)),
            ("conflicts", len(job.conflicts) or None),
        )
    )
    if job.steps:
        print_table(
            ("", "step", "kind", "status", "attempts", "seconds", "metrics"),
            [_step_row(job, n) for n in range(len(job.steps))],
            least=("kind", "attempts", "seconds", "metrics"),
        )
    _print_reasons(job.reasons)
    if job.failure:
        err.print(printable(f"{job.failure.fault.cause}: {job.failure.fault.message}"), markup=False, soft_wrap=True)
        _print_reasons(job.failure.fault.reasons)
        say(job.failure.remedy)


def _step_row(job: JobDetail, number: int) -> tuple[object, ...]:
    step = job.steps[number]
    last = step.attempts[-1] if step.attempts else None
    seconds = ""
    if last and last.started_at and last.ended_at:
        seconds = f"{(last.ended_at - last.started_at).total_seconds():.1f}"
    metrics = metrics_line({name: value for name, value in step.metrics.items() if value is not None})
    return SIGNS[step.status][0], step.name, step.kind, step.status, len(step.attempts) or "", seconds, printable(metrics)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
