"""`neuroweaver jobs again`: starts a job with the request of an earlier one, under a new id."""

import uuid
from typing import Annotated, Any

import typer

from schemas.base import Name
from services.cli.commands import Commands
from services.cli.edge import Edge
from services.cli.exits import Exit, stop_with
from services.cli.job_refusal import job_path, refusals
from services.cli.job_watch import wait_until_read, watch_job
from services.cli.output import print_json, print_pairs
from services.cli.program import as_typed
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.orchestrator.views import JobDetail, JobView

app = Commands()
_NOT_AGAIN = ("deadline", "register_version")
"""Fields of a request that hold for its first run only."""


@app.command(example="neuroweaver jobs again support-2026-11 --watch")
def again(
    job_id: Annotated[str, typer.Argument(help="The job whose request is sent again.", metavar="JOB")],
    base_model: Annotated[
        str | None, typer.Option("--base-model", "-m", help="Another base model to start from, such as NAME@VERSION.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show the job's progress until it has ended.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Start a job with the request of an earlier one, as after rows were erased. Exit code 4 when that job does not exist."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        changed = {} if base_model is None else {"base_model": base_model}
        request = request_again(edge, job_id, f"{job_id[:100]}-again-{uuid.uuid4().hex[:8]}", **changed)
        with refusals(json):
            job = edge.post(JobView, "/training/start", request)
        if watch:
            watch_job(edge, wait_until_read(edge, job.job_id), json)
        elif json:
            print_json(job)
        else:
            typed = as_typed(f"neuroweaver jobs watch {job.job_id}")
            print_pairs((("job", job.job_id), ("status", job.status), ("watch", typed)))


def request_again(edge: Edge, job_id: str, new_id: Name, **changed: Any) -> dict[str, Any]:
    """Return the request of a job under a new id, with these fields changed. Ends the command if it is not known."""
    job = edge.find(JobDetail, job_path(job_id))
    if job is None or job.request is None:
        stop_with(Exit.NOT_FOUND, f"the request of job {job_id} is not known here; neuroweaver jobs list shows the jobs")
    request = job.request.model_dump(mode="json", exclude_unset=True)
    return {**{name: value for name, value in request.items() if name not in _NOT_AGAIN}, "job_id": new_id, **changed}
