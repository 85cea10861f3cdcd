"""`neuroweaver models policy` and `checks`: the rules by which an alias moves, and what its gates said."""

from pathlib import Path
from typing import Annotated

import typer

from schemas.gates import AliasPolicy, Gate
from services.cli.aliases import Alias, By, Json, ModelName, Sequence, Why, alias_path, if_match, who
from services.cli.commands import Commands
from services.cli.edge import Edge
from services.cli.exits import Exit, stop_with
from services.cli.job_file import NoRequest, read_object
from services.cli.job_refusal import refusals
from services.cli.output import print_json, print_pairs, print_table, say
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.cli.versions import model_path
from services.registry.policy_views import CheckPage, PolicyView

app = Commands()
_MUST = "a policy must be an object with fields such as gates; docs/how-to/promote-with-gates.md has an example"


@app.command(
    example='neuroweaver models policy support-router production policy.json --reason "Customers see its answers."'
)
def policy(
    name: ModelName,
    alias: Alias,
    file: Annotated[
        Path | None,
        typer.Argument(help="The rules in JSON or YAML, - for standard input; default: show them.", metavar="FILE"),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove the rules.")] = False,
    approval: Annotated[
        bool | None,
        typer.Option(
            "--approval/--no-approval", help="Whether a second person approves a promotion; the other rules stay."
        ),
    ] = None,
    reason: Why = "",
    by: By = None,
    sequence: Sequence = None,
    json: Json = False,
) -> None:
    """Show the rules by which an alias moves, or set them. Exit code 1 when they are refused, 4 when the model does not exist."""
    if clear and (file is not None or approval is not None):
        stop_with(Exit.USAGE, "--clear removes the rules, so neither a file with rules nor --approval goes with it")
    path, headers = f"{alias_path(name, alias)}/policy", if_match(sequence)
    with http_address(CliSettings()) as address, Edge(address) as edge, refusals(json):
        if clear:
            view = edge.delete(PolicyView, path, headers, by=who(by), reason=reason)
        elif file is None and approval is None:
            view = edge.get(PolicyView, path)
        else:
            rules = _read(file) if file is not None else None
            view = _set(edge, path, rules, headers, {"by": who(by), "reason": reason}, approval)
    if json:
        print_json(view)
    else:
        _print(view.policy)
        say(f"The latest change has number {view.sequence}.")


@app.command(example="neuroweaver models checks support-router --alias production")
def checks(
    name: ModelName,
    alias: Annotated[str | None, typer.Option(help="Only checks for this alias.")] = None,
    version: Annotated[str | None, typer.Option(help="Only checks of this version.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The most checks to list.")] = 20,
    json: Json = False,
) -> None:
    """List what gates said of versions, the newest check first. Exit code 4 when the model does not exist."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        found = edge.listed(CheckPage, f"{model_path(name)}/checks", limit, alias=alias, version=version)
    if json:
        print_json(found)
        return
    rows = [
        (check.alias, check.version, check.holder or "", said.verdict, _gate(said.gate), said.why)
        for check in found
        for said in check.gates
    ]
    print_table(("alias", "version", "instead of", "verdict", "gate", "why"), rows, least=("instead of",))
    if not rows:
        say("None: no gate of this model was asked, or none matches the options.")


def _set(
    edge: Edge, path: str, rules: dict[str, object] | None, headers: dict[str, str], change: dict[str, str], approval: bool | None
) -> PolicyView:  # fmt: skip
    """Set `rules`, or for None those that hold, unless they change meanwhile, with or without approval."""
    if rules is None:
        present = edge.get(PolicyView, path)
        rules, headers = present.policy.model_dump(mode="json"), headers or if_match(present.sequence)
    return edge.put(PolicyView, path, {**rules, **({} if approval is None else {"approval": approval}), **change}, headers)


def _read(file: Path) -> dict[str, object]:
    try:
        return read_object(file, _MUST)
    except NoRequest as error:
        stop_with(Exit.USAGE, str(error))


def _print(rules: AliasPolicy) -> None:
    print_pairs([
        ("protected", "yes" if rules.protected else "no"),
        ("needs approval", "by a second person" if rules.approval else "no"),
        ("goes back without gates", f"for {rules.rollback_days:g} days"),
        *(("gate", _gate(gate)) for gate in rules.gates),
    ])  # fmt: skip


def _gate(gate: Gate) -> str:
    limit = (
        f"{gate.threshold:g}" if gate.threshold is not None else f"the present one's, worse by {gate.worse_by:g} at most"
    )
    needed = (
        f"on {gate.rows} rows" if gate.rows is not None else None,
        f"agreement {gate.agreement:g}" if gate.agreement is not None else None,
        "with an interval" if gate.interval else None,
    )
    return ", ".join((f"{gate.metric} {gate.comparison.replace('_', ' ')} {limit}", *filter(None, needed)))
