"""`neuroweaver models requests`, `approve` and `decline`: promotions that wait for the approval of a second person."""

from typing import Annotated, Literal

import typer

from services.cli.aliases import (
    Accepts,
    AcceptsDeprecated,
    Alias,
    By,
    Json,
    ModelName,
    Why,
    alias_path,
    change,
    numbered,
    who,
)
from services.cli.commands import Commands
from services.cli.edge import Edge
from services.cli.exits import Exit, stop_with
from services.cli.output import print_json, print_table, say
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.cli.versions import model_path
from services.registry.views import AliasesView, PromotionRequest, RequestPage

app = Commands()

Version = Annotated[str, typer.Argument(help="The version that somebody asked for.", metavar="NAME@VERSION")]
Status = Literal["waiting", "approved", "declined", "superseded"]


@app.command("requests", example="neuroweaver models requests support-router --status waiting")
def show_requests(
    name: ModelName,
    alias: Annotated[str | None, typer.Option(help="Only requests for this alias.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only requests of which this became.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most requests to list.")] = 20,
    json: Json = False,
) -> None:
    """List promotions that needed approval, the newest request first. Exit code 4 when the model does not exist."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        found = edge.listed(RequestPage, f"{model_path(name)}/requests", limit, alias=alias, status=status)
    if json:
        print_json(found)
        return
    print_table(
        ("alias", "version", "instead of", "asked by", "reason", "status", "by", "because"), map(_row, found),
        least=("reason", "because"),
    )  # fmt: skip
    if not found:
        say("None: no promotion of this model needed approval, or none matches the options.")


@app.command(example="neuroweaver models approve support-router@1.2.0 production")
def approve(
    version: Version,
    alias: Alias,
    reason: Why = "",
    by: By = None,
    accept_inconclusive: Accepts = False,
    accept_deprecated: AcceptsDeprecated = False,
    json: Json = False,
) -> None:
    """Approve what somebody else asked for, so that the alias moves. Exit code 1 when it is refused, also by its gates, 4 when the
    model does not exist."""
    accepted = {"accept_inconclusive": accept_inconclusive, "accept_deprecated": accept_deprecated}
    _answer("approve", version, alias, json, {"by": who(by), "reason": reason, **accepted})


@app.command(example='neuroweaver models decline support-router@1.2.0 production --reason "Not before the release."')
def decline(version: Version, alias: Alias, reason: Why, by: By = None, json: Json = False) -> None:
    """Decline what somebody asked for, or take your own request back. Exit code 1 when it is refused, 4 when the model does not
    exist."""
    _answer("decline", version, alias, json, {"by": who(by), "reason": reason})


def _answer(answer: str, version: str, alias: str, json: bool, body: dict[str, object]) -> None:
    """Send the answer to the request that waits; the caller names its version, so that a newer request is not answered unseen."""
    name, number = numbered(version)

    def send(edge: Edge) -> AliasesView:
        waiting = edge.get(AliasesView, f"{model_path(name)}/aliases").waiting.get(alias)
        if waiting is None or waiting.version != number:
            waits = f"{waiting.version} does, as {waiting.by} asks" if waiting else f"nothing does for {alias}"
            stop_with(Exit.FAILED, f"{number} does not wait for approval; {waits}")
        return edge.post(AliasesView, f"{alias_path(name, alias)}/{answer}", {**body, "request": waiting.id})

    change(json, send)


def _row(request: PromotionRequest) -> tuple[object, ...]:
    return (
        request.alias, request.version, request.previous or "", request.by, request.reason, request.status,
        request.decided_by or "", request.decided_because,
    )  # fmt: skip
