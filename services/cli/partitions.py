"""`neuroweaver partitions`: how far each service has read the log, what stands and why; and how it goes on."""

import asyncio
import getpass
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Annotated, TypeVar

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.steps import SERVICES
from services.chassis.kernel.operations.partitions.listing import PartitionView, listed
from services.chassis.kernel.operations.partitions.reading import ConsumedTopics, engine_of
from services.chassis.kernel.operations.partitions.stepping import CannotStepOver, NotStopped, step_over
from services.chassis.kernel.records import Partition
from services.cli.commands import Commands
from services.cli.exits import Exit, stop_with
from services.cli.output import hint, out, print_json, print_line, print_table
from services.cli.serve import composed
from services.cli.service_names import known

app = Commands()

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
_PREFIX = "neuroweaver."
_T = TypeVar("_T")


@app.command("list", example="neuroweaver partitions list orchestrator")
def list_partitions(
    services: Annotated[
        list[str] | None, typer.Argument(help="Services; all when none is named.", metavar="[SERVICE]...")
    ] = None,
    json: Json = False,
) -> None:
    """Show position, end and state of every partition, and where, why and since when it is stopped.

    Exit code 1 when one is stopped.
    """
    with composed(known(services or SERVICES)) as built:
        found = {one.name: _on(one.reading, partial(listed, reading=one.reading)) for one in built}
    if json:
        print_json(found)
    else:
        rows = [_row(service, view) for service, views in found.items() for view in views]
        print_table(
            ("service", "partition", "state", "position", "begin", "end", "since (UTC)"),
            rows,
            least=("begin", "end", "position"),
        )
        for service, views in found.items():
            for reason, places in _by_reason(views).items():
                out.print()
                hint(f"{service}, {places}: {reason}")
    stands = any(view.state == "stands" for views in found.values() for view in views)
    raise typer.Exit(int(Exit.FAILED if stands else Exit.OK))


@app.command("step-over", example='neuroweaver partitions step-over orchestrator requests:3 --reason "the record is lost"')
def step(
    service: Annotated[str, typer.Argument(help="orchestrator, trainer, feedback or registry.", metavar="SERVICE")],
    place: Annotated[str, typer.Argument(help="The stopped partition.", metavar="TOPIC:PARTITION")],
    reason: Annotated[str, typer.Option(help="Why the service may continue; recorded in the log for ever.")],
    by: Annotated[str | None, typer.Option(help="Who decides this; default: your user name.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    json: Json = False,
) -> None:
    """Let a stopped partition continue after the cause: a record, removed records or another log.

    Exit code 1 when it is not stopped.
    """
    partition, who = _partition(place), by or getpass.getuser()
    for name, said, most in (("--reason", reason, 2000), ("--by", who, 256)):
        if not 0 < len(said.strip()) <= most:
            stop_with(Exit.USAGE, f"{name}={said[:50]!r}: 1 to {most} characters are needed; the text is recorded for ever")
    with composed(known([service])) as (built,):
        reading = built.reading
        for view in _on(reading, partial(listed, reading=reading)):
            if (view.topic, view.partition) == partition and view.state == "stands" and not yes:
                hint(f"{service} has stopped: {view.reason}")
                typer.confirm("Skip this for ever?", abort=True, err=True)
        try:
            done = _on(
                reading, partial(step_over, reading=reading, partition=partition, reason=reason.strip(), by=who.strip())
            )
        except (NotStopped, CannotStepOver) as error:
            stop_with(Exit.FAILED, str(error))
    if json:
        print_json(done)
    else:
        print_line(f"{done.said}.")


def _on(reading: ConsumedTopics, act: Callable[[AsyncEngine], Awaitable[_T]]) -> _T:
    async def run() -> _T:
        engine = engine_of(reading)
        try:
            return await act(engine)
        finally:
            await engine.dispose()

    return asyncio.run(run())


def _partition(said: str) -> Partition:
    topic, _, number = said.removeprefix(_PREFIX).partition(":")
    if not topic or not (number.isascii() and number.isdigit()):
        stop_with(Exit.USAGE, f"{said!r}: write a partition as TOPIC:PARTITION, such as requests:3")
    return _PREFIX + topic, int(number)


def _row(service: str, view: PartitionView) -> tuple[object, ...]:
    state = f"stopped: {view.cause}" if view.cause else view.state
    since = f"{view.since:%Y-%m-%d %H:%M:%S}" if view.since else ""
    return service, _place(view), state, view.position, view.begin, view.end, since


def _by_reason(views: Iterable[PartitionView]) -> dict[str, str]:
    """Return the stopped partitions by their reason."""
    places: dict[str, list[str]] = {}
    for view in views:
        if view.state == "stands":
            places.setdefault(view.reason or "", []).append(_place(view))
    return {reason: ", ".join(named) for reason, named in places.items()}


def _place(view: PartitionView) -> str:
    return f"{view.topic.removeprefix(_PREFIX)}:{view.partition}"
