"""`neuroweaver models reproduce`: runs the job of a version again from its request, and measures how far the result is from it."""

import uuid
from typing import Annotated, Any

import typer
from pydantic import Field

from schemas.base import Frozen, Name
from services.cli.again import request_again
from services.cli.commands import Commands
from services.cli.edge import Edge
from services.cli.exits import Exit, stop_with
from services.cli.job_refusal import refusals
from services.cli.job_screen import screen
from services.cli.job_watch import followed, wait_until_read
from services.cli.output import err, print_json, print_line, print_table, say
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.cli.versions import files_of, version_of
from services.orchestrator.views import JobView
from services.registry.comparing.comparison import Comparison
from services.registry.views import VersionView

app = Commands()
_NAME_AT_MOST = 128


class Reproduction(Frozen):
    """A version and what its job made when it ran again."""

    version: str
    reproduced: str = Field(description="Id of the version that the second run made.")
    equal: bool = Field(description="Whether both artifacts have the same digest.")
    same_weights: bool = Field(description="Whether all weights are equal; other files may differ.")
    largest_difference: float | None = Field(default=None, description="Largest absolute difference of two weights.")
    tensor: str | None = Field(default=None, description="The tensor that has it.")
    only_one: tuple[str, ...] = Field(default=(), description="Tensors that only one of them has.")
    comparison: Comparison = Field(description="What differs in metrics, recipe and versions of libraries.")


@app.command(example="neuroweaver models reproduce support-router@1.0.0")
def reproduce(
    version: Annotated[str, typer.Argument(help="The version.", metavar="NAME@VERSION")],
    register_as: Annotated[
        str | None, typer.Option("--as", help="Model that gets the new version; default: NAME-reproduced.", metavar="NAME")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Run a version's job again under a new id and compare what it makes. Exit code 0 when the weights are equal, 1 when not."""
    settings = CliSettings()
    with http_address(settings) as address, Edge(address) as edge:
        first = version_of(edge, version)
        request = _again(edge, first, register_as or f"{first.name}-reproduced"[:_NAME_AT_MOST])
        with refusals(json):
            started = edge.post(JobView, "/training/start", request)
        say(f"job {started.job_id} runs what made {first.id}")
        job = followed(edge, wait_until_read(edge, started.job_id), screen(err, json=False))
        if job.status != "completed" or job.model is None:
            stop_with(
                Exit.FAILED,
                f"job {job.job_id} is {job.status}, so nothing can be compared; see `neuroweaver jobs show {job.job_id}`",
            )
        second = version_of(edge, f"{job.model}@{job.version}")
        comparison = edge.get(Comparison, "/comparison", versions=f"{first.id},{second.id}")
    found = _measured(first, second, comparison, settings)
    if json:
        print_json(found)
    else:
        _print(found)
    raise typer.Exit(int(Exit.OK if found.same_weights else Exit.FAILED))


def _again(edge: Edge, version: VersionView, register_as: Name) -> dict[str, Any]:
    """Return the request of the job that made a version, under a new id and pinned to the version that it started from."""
    lineage = version.lineage
    if lineage.imported is not None:
        stop_with(
            Exit.FAILED,
            f"{version.id} was imported from {lineage.imported.source}: no job here made it, so none can make it again; "
            "`neuroweaver models import` reads the source again and says whether its files are the same",
        )
    started = {"base_model": lineage.started_from} if lineage.started_from else {}
    new_id = f"reproduce-{uuid.uuid4().hex[:12]}"
    return request_again(edge, lineage.job_id, new_id, register_as=register_as, alias=None, **started)


def _measured(first: VersionView, second: VersionView, comparison: Comparison, settings: CliSettings) -> Reproduction:
    told = {"version": first.id, "reproduced": second.id, "comparison": comparison}
    if first.artifact.sha256 == second.artifact.sha256:
        return Reproduction(equal=True, same_weights=True, **told)
    try:
        from services.trainer.modelling.distance import distance
    except ImportError as error:
        stop_with(Exit.FAILED, f"{error}: to compare weights on this machine, pip install 'neuroweaver[trainer]'")
    one, other = (files_of(view, settings) for view in (first, second))
    found = distance(one, other)
    return Reproduction(
        equal=False, same_weights=found.largest == 0 and not found.only_one, largest_difference=found.largest,
        tensor=found.tensor or None, only_one=found.only_one, **told,
    )  # fmt: skip


def _print(found: Reproduction) -> None:
    if found.equal:
        print_line(f"{found.reproduced} is {found.version}, byte for byte")
        return
    if found.same_weights:
        print_line(f"{found.reproduced} has the weights of {found.version}; other files differ")
    else:
        print_line(
            f"{found.reproduced} differs from {found.version} by at most {found.largest_difference:.3g}, in {found.tensor}"
        )
    if found.only_one:
        print_line(f"only one of them has {len(found.only_one)} tensors, such as {found.only_one[0]}")
    rows = [(field.field, *field.values) for field in found.comparison.configuration]
    print_table(("made with", found.version, found.reproduced), rows, title="\nWhat differs")
    metrics = [
        (metric.name, *("" if value is None else value.value for value in metric.values))
        for metric in found.comparison.metrics
    ]
    if metrics:
        print_table(("metric", found.version, found.reproduced), metrics, title="\nMetrics")
