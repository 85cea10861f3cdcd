"""`neuroweaver models aliases`, `moves`, `promote`, `rollback` and `unalias`: how the aliases of a model stand and move."""

import getpass
from collections.abc import Callable
from typing import Annotated
from urllib.parse import quote

import typer

from services.cli.commands import Commands
from services.cli.edge import Edge
from services.cli.exits import Exit, stop_with
from services.cli.job_refusal import refusals
from services.cli.output import print_json, print_table, say
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.cli.versions import model_path
from services.registry.domain.state import AliasMove
from services.registry.views import AliasesView, MovePage

app = Commands()

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
ModelName = Annotated[str, typer.Argument(help="Name of the model.", metavar="NAME")]
Alias = Annotated[str, typer.Argument(help="The alias.", metavar="ALIAS")]
Why = Annotated[str, typer.Option("--reason", help="Why, for the record.", metavar="TEXT")]
By = Annotated[str | None, typer.Option("--by", help="Who, for the record; default: your user name.", metavar="NAME")]
Accepts = Annotated[
    bool, typer.Option("--accept-inconclusive", help="Move it although the gates are inconclusive; needs a reason.")
]
AcceptsDeprecated = Annotated[
    bool, typer.Option("--accept-deprecated", help="Move it although the version is deprecated; needs a reason.")
]
Sequence = Annotated[
    int | None,
    typer.Option(
        help="Refuse the change if an alias of the model or its policy has changed since this number, which `models aliases` "
        "shows; a protected alias needs it.",
        metavar="NUMBER",
    ),
]


@app.command("aliases", example="neuroweaver models aliases support-router")
def show_aliases(name: ModelName, json: Json = False) -> None:
    """Show which version each alias of a model names. Exit code 4 when the model does not exist."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        view = edge.get(AliasesView, f"{model_path(name)}/aliases")
    _print_aliases(view, json)


@app.command(example="neuroweaver models moves support-router --alias production")
def moves(
    name: ModelName,
    alias: Annotated[str | None, typer.Option(help="Only moves of this alias.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most moves to list.")] = 20,
    json: Json = False,
) -> None:
    """List how the aliases of a model moved, the newest move first. Exit code 4 when the model does not exist."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        found = edge.listed(MovePage, f"{model_path(name)}/moves", limit, alias=alias)
    if json:
        print_json(found)
    else:
        print_table(
            ("alias", "move", "from", "to", "at", "by", "reason"), [_row(move) for move in found], least=("reason", "at")
        )
        if not found:
            say("None: no alias of this model has moved, or none matches the options.")


@app.command(example='neuroweaver models promote support-router@1.0.0 production --reason "Passed the review."')
def promote(
    version: Annotated[str, typer.Argument(help="The version.", metavar="NAME@VERSION")],
    alias: Alias,
    reason: Why = "",
    by: By = None,
    accept_inconclusive: Accepts = False,
    accept_deprecated: AcceptsDeprecated = False,
    sequence: Sequence = None,
    json: Json = False,
) -> None:
    """Move an alias to a version, or ask for it where a second person approves. Exit code 1 when it is refused, also by its gates, 4
    when the model does not exist."""
    name, number = numbered(version)
    accepted = {"accept_inconclusive": accept_inconclusive, "accept_deprecated": accept_deprecated}
    body = {"version": number, "by": who(by), "reason": reason, **accepted}
    change(json, lambda edge: edge.put(AliasesView, alias_path(name, alias), body, if_match(sequence)))


@app.command(example='neuroweaver models rollback support-router production --reason "Answers are empty."')
def rollback(
    name: ModelName,
    alias: Alias,
    reason: Why,
    to: Annotated[
        str | None,
        typer.Option(help="The version; default: the last good one that the alias named before.", metavar="VERSION"),
    ] = None,
    by: By = None,
    accept_inconclusive: Accepts = False,
    sequence: Sequence = None,
    json: Json = False,
) -> None:
    """Let an alias go back to a version that it named before. Exit code 1 when there is none, 4 when the model does not exist."""
    body = {"version": to, "by": who(by), "reason": reason, "accept_inconclusive": accept_inconclusive}
    path = f"{alias_path(name, alias)}/rollback"
    change(json, lambda edge: edge.post(AliasesView, path, body, if_match(sequence)))


@app.command(example='neuroweaver models unalias support-router candidate --reason "Nobody uses it."')
def unalias(name: ModelName, alias: Alias, reason: Why = "", by: By = None, json: Json = False) -> None:
    """Remove an alias; its version stays. Exit code 1 when there is no such alias, 4 when the model does not exist."""
    change(json, lambda edge: edge.delete(AliasesView, alias_path(name, alias), by=who(by), reason=reason))


def change(json: bool, send: Callable[[Edge], AliasesView]) -> None:
    """Send a change of an alias and print the aliases after it."""
    with http_address(CliSettings()) as address, Edge(address) as edge, refusals(json):
        view = send(edge)
    _print_aliases(view, json)


def _print_aliases(view: AliasesView, json: bool) -> None:
    if json:
        print_json(view)
        return
    rows = [
        (alias, version, ", ".join(reversed(view.earlier.get(alias, ()))))
        for alias, version in sorted(view.aliases.items())
    ]
    print_table(("alias", "version", "can go back to"), rows, least=("can go back to",))
    say(f"The latest change has number {view.sequence}." if rows else "None: the model has no alias.")
    for alias, waiting in sorted(view.waiting.items()):
        approve = f"neuroweaver models approve {view.name}@{waiting.version} {alias}"
        say(f"{alias} waits to be {waiting.version}, as {waiting.by} asks, until somebody else approves it: `{approve}`")


def _row(move: AliasMove) -> tuple[object, ...]:
    at = f"{move.at.astimezone():%Y-%m-%d %H:%M:%S}"
    by = f"{move.by}, approved by {move.approved_by}" if move.approved_by else move.by
    return move.alias, move.kind.replace("_", " "), move.previous or "", move.version or "", at, by, move.reason


def numbered(version: str) -> tuple[str, str]:
    """Return name and number of `NAME@VERSION`, or end the command."""
    name, _, number = version.partition("@")
    if not number:
        stop_with(Exit.USAGE, f"{version} names no version; write {name}@VERSION, as `neuroweaver models list` shows it")
    return name, number


def who(by: str | None) -> str:
    """Return who makes a change: `by`, or the user's name."""
    if by:
        return by
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "neuroweaver-cli"


def if_match(sequence: int | None) -> dict[str, str]:
    """Return the header that refuses a change if another followed `sequence`."""
    return {} if sequence is None else {"If-Match": f'"{sequence}"'}


def alias_path(name: str, alias: str) -> str:
    """Return the route of an alias."""
    return f"{model_path(name)}/aliases/{quote(alias, safe='')}"
