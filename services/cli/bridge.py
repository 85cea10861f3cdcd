"""`neuroweaver bridge`: mirrors what the log says into systems of others."""

import asyncio
import signal
from typing import Annotated

import typer

from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel import log
from services.cli.commands import Commands
from services.cli.exits import Exit, stop_with
from services.cli.output import print_json, say
from services.cli.settings import CliSettings
from services.cli.stack import broker

app = Commands()


@app.callback()
def bridge() -> None:
    """Mirror what the log says into systems of others."""


@app.command(example="neuroweaver bridge mlflow http://mlflow.internal:5000")
def mlflow(
    uri: Annotated[str, typer.Argument(help="Address of the MLflow server.", metavar="URI")],
    model: Annotated[list[str] | None, typer.Option(help="Only this model; may be given again.", metavar="NAME")] = None,
    once: Annotated[bool, typer.Option("--once", help="Mirror what is there now, and end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --once, print JSON for programs.")] = False,
) -> None:
    """Mirror models, versions, metrics, aliases, descriptions and tags into MLflow's model registry, until it is interrupted.

    It can be ended and started again at any time: how far each model is mirrored is a tag in MLflow. Run one for each registry.
    With --once, exit code 3 when MLflow does not answer.
    """
    from services.bridges.mlflow_registry import Away, Foreign

    with broker(CliSettings()) as cluster:
        try:
            applied = asyncio.run(_run(cluster, uri, model or [], once=once))
        except ImportError as error:
            stop_with(Exit.FAILED, f"{error}: pip install 'neuroweaver[mlflow]'")
        except Foreign as foreign:
            stop_with(Exit.FAILED, str(foreign))
        except Away as away:
            stop_with(Exit.UNREACHABLE, f"MLflow at {uri} does not take what is mirrored: {away}")
    if json:
        print_json({"applied": applied})
    elif once:
        say(f"{applied} events mirrored")


async def _run(cluster: Cluster, uri: str, models: list[str], *, once: bool) -> int:
    from services.bridges.following import catch_up, follow
    from services.bridges.mirroring import Mirror
    from services.bridges.mlflow_registry import MlflowRegistry

    registry = await asyncio.to_thread(MlflowRegistry, uri, await log.cluster_id(cluster))
    mirror = Mirror(registry, models, say)
    if once:
        return await catch_up(cluster, mirror, {})
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await follow(cluster, mirror, stop, say)
    return 0
