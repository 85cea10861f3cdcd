"""`neuroweaver demo`: runs one job from its request to a registered model, and shows what it measures while it runs."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import httpx2
import typer
from rich.console import Console
from rich.text import Text

from schemas.ids import new_id
from schemas.requests import JobRequest
from services.chassis.storage.artifacts.store import ArtifactStore
from services.cli.demo.ending import print_failure, print_success, write_report
from services.cli.exits import Exit, stop_with
from services.cli.output import err, out, print_json, say
from services.cli.settings import CliSettings
from services.cli.stack import log_of, whole_stack
from services.demo.base_model import demo_base_model
from services.demo.deployed import DeploymentFound, NotDeployed, deployed
from services.demo.findings import Fetch
from services.demo.memory import PeakMemory
from services.demo.observed_job import ObservedJob
from services.demo.outsider import Outsider
from services.demo.recipe import Pipeline, job_request
from services.demo.report import Unfinished
from services.demo.screen import screen
from services.demo.watch import Stranded, watch
from services.devstack import state
from services.devstack.state import StackState

_FOLDER = Path("var/demo")


def demo(
    pipeline: Annotated[
        Pipeline,
        typer.Option(help="rlaif: supervised fine-tuning, then AI feedback. sft: only the first, which is faster."),
    ] = "rlaif",
    json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON; progress goes to standard error.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the data of the JobRequested and start nothing.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Folder for report.html and report.json.")] = _FOLDER,
) -> None:
    """Make a model from one event while you watch, and report what each stage gained."""
    settings = CliSettings()
    job_id = f"demo-{pipeline}-{new_id()}"
    request = job_request(pipeline, job_id=job_id, base_model=str(demo_base_model(settings.cache.resolve())))
    if dry_run:
        print_json(request)
        return
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    console = err if json else out
    try:
        _install_base_model(settings)
        with (
            whole_stack(settings) as stack,
            PeakMemory(lambda: (os.getpid(), stack.pid, *stack.servers.values())) as memory,
        ):
            line = f"Publishing JobRequested {job_id} to Kafka at {stack.kafka_bootstrap}, as RelayCore would."
            console.print(Text(line), soft_wrap=True)
            job = asyncio.run(_run(settings, stack, request, console))
            served = _deployed(stack, job, console)
        if job.outcome != "completed":
            print_failure(console, job)
            raise typer.Exit(int(Exit.FAILED))
        made = write_report(
            job, pipeline, _fetch(settings), peak_memory_bytes=memory.peak, folder=folder, deployment=served
        )
    except KeyboardInterrupt:
        stop_with(Exit.INTERRUPTED, f"stopped; the job {job_id} was cancelled if it had begun")
    except (Unfinished, Stranded) as failure:
        stop_with(Exit.FAILED, str(failure))
    if json:
        print_json(made)
    else:
        print_success(out, job, made, folder)


async def _run(settings: CliSettings, stack: StackState, request: JobRequest, console: Console) -> ObservedJob:
    def trouble() -> str | None:
        if state.owner(settings.home) == stack.pid:
            return None
        return f"the stack ended while the job was running; its log is {log_of(settings)}"

    async with Outsider(stack.cluster, request.job_id) as outsider:
        with screen(console) as shown:
            return await watch(outsider, request, shown, trouble=trouble)


def _deployed(stack: StackState, job: ObservedJob, console: Console) -> DeploymentFound | None:
    """Deploy what the job made and ask it; None, with the reason on the console, if it is not served."""
    if stack.http is None or job.registered is None or job.outcome != "completed":
        return None
    console.print(Text(f"Deploying {job.registered.model}@{job.registered.version}, and asking it one question."))
    try:
        with httpx2.Client(base_url=stack.http, timeout=30.0) as http:
            return deployed(http, job.registered.model, job.registered.version)
    except NotDeployed as failure:
        console.print(Text(f"It was not deployed: {failure}"), soft_wrap=True)
        return None


def _install_base_model(settings: CliSettings) -> None:
    """Install in another process, which loads torch and returns its memory when it ends."""
    if demo_base_model(settings.cache.resolve()).exists():
        return
    say("preparing the base model")
    answer = subprocess.run([sys.executable, "-m", "services.demo.base_model"], stdout=sys.stderr)
    if answer.returncode != 0:
        stop_with(Exit.FAILED, "the base model could not be prepared; the reason is printed above")


def _fetch(settings: CliSettings) -> Fetch:
    store = ArtifactStore(str(settings.home.resolve()))
    return lambda ref: store.fetch(ref, settings.cache)
