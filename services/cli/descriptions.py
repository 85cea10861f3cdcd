"""`neuroweaver models describe` and `state`: what there is to know about a version, and whether it may still be used."""

from typing import Annotated, Literal

import typer

from services.cli.aliases import By, Json, Why, numbered, who
from services.cli.commands import Commands
from services.cli.edge import Edge
from services.cli.exits import Exit, stop_with
from services.cli.job_refusal import refusals
from services.cli.output import print_json, print_pairs
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.cli.versions import model_path
from services.registry.views import VersionView

app = Commands()


@app.command(
    example='neuroweaver models describe support-router@1.0.0 --text "Without the data of 2025." --tag team=support'
)
def describe(
    model_id: Annotated[str, typer.Argument(help="The version.", metavar="NAME[@VERSION|@ALIAS]")],
    text: Annotated[str | None, typer.Option(help="Its description; default: as before.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag to set; may be given again.", metavar="NAME=VALUE")] = None,
    untag: Annotated[list[str] | None, typer.Option(help="A tag to remove; may be given again.", metavar="NAME")] = None,
    by: By = None,
    json: Json = False,
) -> None:
    """Describe a version by a text and by tags, which `models list --filter` finds. Exit code 4 when it does not exist."""
    tags: dict[str, str | None] = dict.fromkeys(untag or ())
    for one in tag or ():
        name, equals, value = one.partition("=")
        if not equals or name in tags:
            stop_with(Exit.USAGE, f"--tag {one} is not NAME=VALUE, or {name} is given twice")
        tags[name] = value
    if text is None and not tags:
        stop_with(Exit.USAGE, "nothing would change; give --text, --tag or --untag")
    body = {"description": text, "tags": tags, "by": who(by)}
    with http_address(CliSettings()) as address, Edge(address) as edge, refusals(json):
        version = edge.patch(VersionView, model_path(model_id), body)
    if json:
        print_json(version)
    else:
        print_pairs(
            (("model", version.id), ("description", version.description or None), ("tags", tags_line(version.tags)))
        )


@app.command("state", example='neuroweaver models state support-router@1.0.0 deprecated --reason "1.1.0 is better."')
def change_state(
    version: Annotated[str, typer.Argument(help="The version.", metavar="NAME@VERSION")],
    state: Annotated[Literal["live", "deprecated", "archived"], typer.Argument(help="Its state from now on.")],
    reason: Why,
    by: By = None,
    json: Json = False,
) -> None:
    """Deprecate or archive a version, or make it live again. Exit code 1 when it is still used, 4 when it does not exist."""
    print_state(put_state(version, state, reason, by, json), json)


def put_state(version: str, state: str, reason: str, by: str | None, json: bool) -> VersionView:
    """Change the state of a version; ends the command where that is refused."""
    numbered(version)
    body = {"state": state, "by": who(by), "reason": reason}
    with http_address(CliSettings()) as address, Edge(address) as edge, refusals(json):
        return edge.put(VersionView, f"{model_path(version)}/state", body)


def print_state(version: VersionView, json: bool) -> None:
    """Print the state of a version."""
    if json:
        print_json(version)
    else:
        print_pairs((("model", version.id), ("state", state_line(version))))


def state_line(version: VersionView) -> str:
    """Return the state of a version with its reason as one line."""
    return f"{version.state}: {version.state_reason}" if version.state_reason else version.state


def tags_line(tags: dict[str, str]) -> str | None:
    """Return tags as one line; None for none."""
    return ", ".join(f"{name}={value}" for name, value in tags.items()) or None
