"""Prints what a job is and how it ended, for people."""

from collections.abc import Iterator
from datetime import UTC, datetime

from services.chassis.reports.metric_text import metrics_line
from services.cli.job_refusal import print_reasons
from services.cli.output import err, print_pairs, print_table, say
from services.cli.printable import printable
from services.cli.step_lines import SIGNS
from services.orchestrator.views import JobDetail, JobView

_KWH = 3.6e6
"""Joules of a kilowatt-hour."""


def print_job(job: JobDetail) -> None:
    """Print a job with its steps."""
    print_pairs(
        (
            ("job", job.job_id),
            ("status", job.status),
            ("requester", job.requester and printable(job.requester)),
            ("pipeline", job.pipeline and printable(job.pipeline)),
            ("model", job.model and printable(job.model)),
            ("version", job.version),
            ("priority", job.priority or None),
            ("requested", job.requested_at and moment_text(job.requested_at)),
            ("ended", job.ended_at and moment_text(job.ended_at)),
            ("deadline", job.deadline and moment_text(job.deadline)),
            ("budget", job.budget and f"{job.budget:g}"),
            ("conflicts", len(job.conflicts) or None),
            *_used(job),
        )
    )
    if job.steps:
        print_table(
            ("", "step", "kind", "status", "attempts", "seconds", "metrics"),
            [_step_row(job, n) for n in range(len(job.steps))],
            least=("kind", "attempts", "seconds", "metrics"),
        )
    print_reasons(job.reasons)
    if job.failure:
        err.print(printable(f"{job.failure.fault.cause}: {job.failure.fault.message}"), markup=False, soft_wrap=True)
        print_reasons(job.failure.fault.reasons)
        say(job.failure.remedy)


def _used(job: JobView) -> Iterator[tuple[str, object]]:
    """Yield what the job's attempts used, without what nobody measured or priced."""
    if job.usage is None or not job.usage.seconds:
        return
    yield "time", f"{job.usage.seconds:.1f} s of its attempts"
    if job.usage.joules is not None:
        yield "energy", f"{job.usage.joules / _KWH:.4g} kWh, where it was measured"
    if job.usage.costs:
        yield "cost", ", ".join(f"{amount:.2f} {currency}" for currency, amount in sorted(job.usage.costs.items()))


def _step_row(job: JobDetail, number: int) -> tuple[object, ...]:
    step = job.steps[number]
    last = step.attempts[-1] if step.attempts else None
    seconds = ""
    if last and last.started_at and last.ended_at:
        seconds = f"{(last.ended_at - last.started_at).total_seconds():.1f}"
    metrics = metrics_line({name: value for name, value in step.metrics.items() if value is not None})
    return SIGNS[step.status][0], step.name, step.kind, step.status, len(step.attempts) or "", seconds, printable(metrics)


def print_end(job: JobView) -> None:
    """Print how a job ended, and what to do if it failed."""
    registered = f"{job.model} {job.version}" if job.version else None
    reason = job.cancel.reason if job.cancel and job.status == "cancelled" else None
    print_pairs((("job", job.job_id), ("status", job.status), ("registered", registered), ("reason", reason or None)))
    print_reasons(job.reasons)
    if job.failure:
        where = f"step {job.failure.step}" if job.failure.step else "the job"
        err.print(printable(f"{where} failed ({job.failure.fault.cause}): {job.failure.fault.message}"), markup=False)
        print_reasons(job.failure.fault.reasons)
        say(f"last lines of its log: neuroweaver jobs logs {job.job_id}")
        if job.failure.fault.report:
            say(f"its report: neuroweaver jobs report {job.job_id} --step {job.failure.step}")
        say(job.failure.remedy)


def moment_text(moment: datetime) -> str:
    """Write a moment in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
