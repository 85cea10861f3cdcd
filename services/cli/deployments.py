"""`neuroweaver deployments`: list, show, create and retire deployments, and let them go on, go back or try again."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from schemas.deployments import PairsJudged
from services.cli.aliases import By, Json, Why, who
from services.cli.commands import Commands
from services.cli.edge import Edge
from services.cli.exits import Exit, stop_with
from services.cli.job_file import NoRequest, read_object
from services.cli.job_refusal import refusals
from services.cli.output import print_json, print_line, print_pairs, print_table, say
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.registry.deploying.views import DeploymentList, DeploymentView, ManifestList

app = Commands()

Name = Annotated[str, typer.Argument(help="Name of the deployment.", metavar="NAME")]
Generation = Annotated[
    int | None,
    typer.Option(
        help="Refuse if the deployment has got another wish since this one, which `show` shows.", metavar="NUMBER"
    ),
]


@app.command("list", example="neuroweaver deployments list")
def list_deployments(json: Json = False) -> None:
    """List the deployments that somebody wants, and how they are."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        found = edge.get(DeploymentList, "/deployments")
    if json:
        print_json(found)
        return
    rows = [
        (one.name, one.model, one.version or "", one.target.version if one.target else "", _status(one))
        for one in found.items
    ]
    print_table(("deployment", "model", "serves", "rolls out", "ready"), rows)
    if not rows:
        say("None: `neuroweaver deployments create` deploys a version.")


@app.command(example="neuroweaver deployments show support")
def show(name: Name, json: Json = False) -> None:
    """Show what a deployment serves, how it is, and what happened. Exit code 4 when there is none."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        view = edge.get(DeploymentView, _path(name))
    _print(view, json)


@app.command(example="neuroweaver deployments create support support-router@production --follow")
def create(
    name: Name,
    model: Annotated[str, typer.Argument(help="The version; it is pinned.", metavar="MODEL[@VERSION|@ALIAS]")],
    follow: Annotated[bool, typer.Option("--follow", help="Roll out every later move of the alias, too.")] = False,
    driver: Annotated[
        str | None, typer.Option(help="What serves it: local, vllm or kserve. Default: as the operator has set it.")
    ] = None,
    deadline: Annotated[float | None, typer.Option(help="Seconds until a version that is not ready is given up.")] = None,
    bake: Annotated[float | None, typer.Option(help="Seconds for which the version before is kept warm.")] = None,
    canary: Annotated[bool, typer.Option("--canary", help="Lead a growing share of the callers to it.")] = False,
    step: Annotated[
        list[float] | None,
        typer.Option(help="canary: a share in percent; may be given again. Default: 1, 10, 50, 100.", metavar="PERCENT"),
    ] = None,
    step_seconds: Annotated[float | None, typer.Option(help="canary: the shortest time of a step.")] = None,
    slower_by: Annotated[
        float | None,
        typer.Option(help="canary: by which factor it may be slower than the version before.", metavar="FACTOR"),
    ] = None,
    shadow: Annotated[
        Path | None,
        typer.Option(
            help="canary: have a judge compare its answers with those of the version before, as this JSON or YAML file says; - reads "
            "standard input. Texts of callers are stored for it.",
            metavar="FILE",
        ),
    ] = None,
    generation: Generation = None,
    reason: Why = "",
    by: By = None,
    json: Json = False,
) -> None:
    """Deploy a version, in a new deployment or in one that there is. Exit code 1 when it is refused, 4 for no such version."""
    asked = {
        "deadline_seconds": deadline, "bake_seconds": bake, "step_seconds": step_seconds, "steps": step or None,
        "slower_by": slower_by, "shadow": _read(shadow),
    }  # fmt: skip
    rollout = {name: value for name, value in asked.items() if value is not None} | {
        "strategy": "canary" if canary else "direct"
    }
    body = {"name": name, "model": model, "follow": follow, "rollout": rollout, "by": who(by), "reason": reason}
    if driver is not None:
        body["driver"] = driver
    headers = {} if generation is None else {"If-Match": f'"{generation}"'}
    _change(json, lambda edge: edge.post(DeploymentView, "/deployments", body, headers))


@app.command(example="neuroweaver deployments render support | kubectl diff -f -")
def render(name: Name, json: Json = False) -> None:
    """Print what the driver kserve applies for a deployment, as YAML; no cluster is needed. Exit code 1 when settings miss, 4 for no deployment."""
    import yaml

    with http_address(CliSettings()) as address, Edge(address) as edge, refusals(json):
        found = edge.get(ManifestList, f"{_path(name)}/manifests")
    if json:
        print_json(found)
    else:
        for line in yaml.safe_dump_all(found.items, sort_keys=False).splitlines():
            print_line(line)


@app.command(example='neuroweaver deployments retire support --reason "Nobody asks it."')
def retire(name: Name, reason: Why = "", by: By = None, json: Json = False) -> None:
    """Retire a deployment. Exit code 1 when it is retired, 4 when there is none."""
    _change(json, lambda edge: edge.delete(DeploymentView, _path(name), by=who(by), reason=reason))


@app.command(example='neuroweaver deployments rollback support --reason "Its answers are empty."')
def rollback(name: Name, reason: Why, by: By = None, json: Json = False) -> None:
    """Give up what is rolled out, or return to the version before. Exit code 1 when there is none that is warm."""
    _change(json, lambda edge: edge.post(DeploymentView, f"{_path(name)}/rollback", {"by": who(by), "reason": reason}))


@app.command(example='neuroweaver deployments advance support --reason "Few ask it at night."')
def advance(name: Name, reason: Why, by: By = None, json: Json = False) -> None:
    """Give a canary its next share of the callers, whatever was measured. Exit code 1 when none is under way."""
    _change(json, lambda edge: edge.post(DeploymentView, f"{_path(name)}/advance", {"by": who(by), "reason": reason}))


@app.command(example='neuroweaver deployments retry support --reason "The disk is repaired."')
def retry(name: Name, reason: Why, by: By = None, json: Json = False) -> None:
    """Try again what was given up. Exit code 1 when nothing was."""
    _change(json, lambda edge: edge.post(DeploymentView, f"{_path(name)}/retry", {"by": who(by), "reason": reason}))


def _read(shadow: Path | None) -> dict[str, Any] | None:
    if shadow is None:
        return None
    try:
        return read_object(shadow, "what is shadowed is an object with fields such as share and feedback")
    except NoRequest as error:
        stop_with(Exit.USAGE, str(error))


def _change(json: bool, send: Callable[[Edge], DeploymentView]) -> None:
    with http_address(CliSettings()) as address, Edge(address) as edge, refusals(json):
        view = send(edge)
    _print(view, json)


def _print(view: DeploymentView, json: bool) -> None:
    if json:
        print_json(view)
        return
    pairs = [
        ("deployment", view.name), ("model", view.model), ("serves", view.version), ("generation", view.generation), ("driver", view.driver),
        ("rolls out", view.target and view.target.version), ("canary", view.percent and f"{view.percent:g} % of the callers"), ("judged", view.judged and _judged(view.judged)), ("warm", view.warm and view.warm.version),
        *((one.type.lower(), f"{one.status}, {one.reason}{f': {one.message}' if one.message else ''}") for one in view.conditions),
    ]  # fmt: skip
    print_pairs(tuple(pairs))
    rows = [
        (f"{one.at.astimezone():%Y-%m-%d %H:%M:%S}", one.event, one.version, one.by or "", one.reason)
        for one in view.history
    ]
    print_table(("at", "event", "version", "by", "reason"), rows, least=("reason", "at"))


def _judged(said: PairsJudged) -> str:
    better = f"{said.wins} of {said.wins + said.losses} decided pairs are better"
    interval = "" if said.low is None or said.high is None else f", 95 % interval {said.low:.0%} to {said.high:.0%}"
    return f"{better}{interval}; {said.ties} ties, by {said.judge}"


def _status(view: DeploymentView) -> str:
    ready = next(one for one in view.conditions if one.type == "Ready")
    return ready.status if ready.status == "True" else f"{ready.status}, {ready.reason}"


def _path(name: str) -> str:
    return f"/deployments/{quote(name, safe='')}"
