"""Shows a job's progress until it has ended, also from the moment at which its request was only published."""

import time

import typer

from services.cli.edge import Edge, RequestRefused
from services.cli.exits import Exit
from services.cli.job_refusal import job_path
from services.cli.job_screen import Screen, screen, show
from services.cli.job_text import print_end
from services.cli.output import out, say
from services.orchestrator.views import JobView

_LOOK_SECONDS = 0.5


def wait_until_read(edge: Edge, job_id: str) -> JobView:
    """Wait until the orchestrator has read a request that it has just published, and return the job; until then it knows none."""
    waiting = False
    while True:
        try:
            return edge.get(JobView, job_path(job_id))
        except RequestRefused as refusal:
            if refusal.exit != Exit.NOT_FOUND:
                raise
        if not waiting:
            say(
                f"the request is published; waiting until the orchestrator has read it. Later: neuroweaver jobs watch {job_id}"
            )
        waiting = True
        time.sleep(_LOOK_SECONDS)


def watch_job(edge: Edge, job: JobView, json: bool) -> None:
    """Show the events of `job`, which `edge` has just returned: the stream of another program would never end."""
    job = followed(edge, job, screen(out, json))
    if not json:
        print_end(job)
    raise typer.Exit(int(Exit.OK if job.status == "completed" else Exit.FAILED))


def followed(edge: Edge, job: JobView, on: Screen) -> JobView:
    """Show the events of `job` until it has ended, and return it as it is then."""
    try:
        with on as shown:
            for event in edge.stream(f"{job_path(job.job_id)}/events"):
                job = show(shown, event) or job
    except KeyboardInterrupt:
        say(
            f"no longer watching; the job continues: neuroweaver jobs watch {job.job_id}, neuroweaver jobs cancel {job.job_id}"
        )
        raise typer.Exit(int(Exit.INTERRUPTED)) from None
    return job
