"""How the demo ends: files and a table where the job completed, else the failing step, its cause and what to do."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from schemas.jobs import StepFault
from services.cli.printable import printable
from services.cli.program import as_typed
from services.demo.deployed import QUESTION, DeploymentFound
from services.demo.findings import Fetch, findings
from services.demo.observed_job import ObservedJob
from services.demo.page import page, read_commands
from services.demo.recipe import Pipeline
from services.demo.report import Report, duration, report
from services.demo.screen import closing_table


def write_report(
    job: ObservedJob,
    pipeline: Pipeline,
    fetch: Fetch,
    *,
    peak_memory_bytes: int,
    folder: Path,
    deployment: DeploymentFound | None = None,
) -> Report:
    """Write `report.json` and `report.html` to `folder`. Raises Unfinished."""
    found = findings(job, pipeline, fetch)
    made = report(job, pipeline, rows=found.rows, peak_memory_bytes=peak_memory_bytes, deployment=deployment)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(page(made, job, found), encoding="utf-8")
    (folder / "report.json").write_text(made.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return made


def print_success(console: Console, job: ObservedJob, made: Report, folder: Path) -> None:
    """Print the table, the model, the audit trail, and the next commands to try."""
    alias = f" · alias {job.promoted.alias}" if job.promoted else ""
    console.print()
    console.print(closing_table(made))
    console.print(Text(f"{made.model.name} {made.model.version}{alias}", style="bold"))
    console.print(Text(f"artifact {made.model.digest}"))
    console.print(
        Text(f"{duration(made.seconds['total'])}, at most {made.peak_memory_bytes / 1e9:.1f} GB of memory in all processes")
    )
    if (served := made.deployment) is not None:
        console.print(
            Text(f"deployed as {served.name}, ready after {served.ready_seconds:g} s, asked: {QUESTION}"), soft_wrap=True
        )
        console.print(Text(f"  {served.version} answers: {printable(served.answer)}"), soft_wrap=True)
    console.print()
    console.print(Text("The audit trail is on Kafka:"))
    for command, (topic, count) in zip(read_commands(made), made.events.items(), strict=True):
        console.print(
            Text(as_typed(f"  {count:>5} {'event ' if count == 1 else 'events'} on {topic:<21} {command}")), soft_wrap=True
        )
    console.print(
        Text(as_typed(f"  How it was made: neuroweaver audit trace {made.model.name}@{made.model.version}")),
        soft_wrap=True,
    )
    console.print()
    console.print(Text(f"Report: {folder / 'report.html'} (for programs: {folder / 'report.json'})"), soft_wrap=True)
    console.print(
        Text(as_typed(f"Try it:  neuroweaver models try {made.model.name} 'My laptop has not arrived.'")),
        soft_wrap=True,
    )


def print_failure(console: Console, job: ObservedJob) -> None:
    """Print why there is no model, with the last lines of the failed step's log."""
    console.print()
    for line in failure_lines(job):
        console.print(Text(line), soft_wrap=True)


def failure_lines(job: ObservedJob) -> Iterator[str]:
    """Yield the outcome, the failed step and its cause, reasons with remedies, and the last lines of its log."""
    match job.outcome:
        case "rejected":
            yield f"The job {job.job_id} was rejected:"
            yield from (f"  - {reason}" for reason in job.reasons)
        case "cancelled":
            yield f"The job {job.job_id} was cancelled: {job.cancel_reason}"
        case "failed" if job.fault:
            where = f" in step {job.failed_step}" if job.failed_step else ""
            yield f"The job {job.job_id} failed{where}; cause: {job.fault.cause}."
            yield from _fault_lines(job.fault)
        case _:
            yield f"The job {job.job_id} has no outcome on the topics."
    yield as_typed(f"Its history: neuroweaver audit replay --job {job.job_id}")


def _fault_lines(fault: StepFault) -> Iterator[str]:
    yield fault.message
    yield from (f"  - {reason}" for reason in fault.reasons)
    if fault.log_tail:
        yield "The last lines of its log:"
        yield from (f"  {line}" for line in fault.log_tail)
