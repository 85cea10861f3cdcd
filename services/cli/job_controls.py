"""`neuroweaver jobs retry`, `pause`, `resume`, `checkpoint` and `priority`: what can be done with a job after it was accepted."""

from typing import Annotated

import typer

from schemas.requests import PRIORITY_AT_MOST
from services.cli.commands import Commands
from services.cli.edge import Edge
from services.cli.job_refusal import job_path, refusals
from services.cli.output import print_json, print_pairs
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.orchestrator.views import JobView

app = Commands()

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
JobId = Annotated[str, typer.Argument(help="The job's id.", metavar="JOB")]
Why = Annotated[str, typer.Option("--reason", help="Why, for the record.", metavar="TEXT")]


@app.command(example="neuroweaver jobs retry support-2026-11")
def retry(job_id: JobId, reason: Why = "", json: Json = False) -> None:
    """Continue a failed job from its failed step; what was completed is kept. Exit code 1 when it has not failed."""
    _control(job_id, "retry", reason, json)


@app.command(example="neuroweaver jobs pause support-2026-11")
def pause(job_id: JobId, reason: Why = "", json: Json = False) -> None:
    """Pause a job: running steps write a checkpoint and stop. Exit code 1 when it has ended."""
    _control(job_id, "pause", reason, json)


@app.command(example="neuroweaver jobs resume support-2026-11")
def resume(job_id: JobId, reason: Why = "", json: Json = False) -> None:
    """Continue a paused job from its checkpoints. Exit code 1 when it is not paused."""
    _control(job_id, "resume", reason, json)


@app.command(example="neuroweaver jobs checkpoint support-2026-11")
def checkpoint(job_id: JobId, reason: Why = "", json: Json = False) -> None:
    """Let running steps write a checkpoint now and go on. Exit code 1 when none runs."""
    _control(job_id, "checkpoint", reason, json)


@app.command(example="neuroweaver jobs priority support-2026-11 10")
def priority(
    job_id: JobId,
    value: Annotated[
        int,
        typer.Argument(
            help="The new priority; a higher number runs earlier.", metavar="N", min=-PRIORITY_AT_MOST, max=PRIORITY_AT_MOST
        ),
    ],
    reason: Why = "",
    json: Json = False,
) -> None:
    """Change the priority of a job's steps that wait or come later. For one below 0 write `-- -5` at the end."""
    _control(job_id, "priority", reason, json, priority=value)


def _control(job_id: str, control: str, reason: str, json: bool, **options: int) -> None:
    with http_address(CliSettings()) as address, Edge(address) as edge:
        body = {"requester": "neuroweaver-cli", "reason": reason, **options}
        with refusals(json):
            job = edge.post(JobView, f"{job_path(job_id)}/{control}", body)
    if json:
        print_json(job)
    else:
        print_pairs((("job", job.job_id), ("status", job.status), ("priority", job.priority or None)))
