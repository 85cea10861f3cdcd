"""`neuroweaver models compare` and `recommend`: versions beside each other, and which of them fits a goal."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from schemas.metrics import Metric
from services.chassis.reports.metric_text import metric_text
from services.cli.commands import Commands
from services.cli.edge import Edge
from services.cli.job_refusal import job_path, refusals
from services.cli.output import print_json, print_line, print_table, print_text, say
from services.cli.settings import CliSettings
from services.cli.stack import http_address
from services.cli.versions import model_path
from services.registry.comparing.comparison import ComparedMetric, Comparison, MeasuredValue
from services.registry.comparing.recommendation import Recommendation

app = Commands()

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command(example="neuroweaver models compare support-router@1.0.0 support-router@candidate --answers 3")
def compare(
    versions: Annotated[
        list[str],
        typer.Argument(help="Two to five versions; the others are compared with the first.", metavar="NAME@VERSION..."),
    ],
    everything: Annotated[bool, typer.Option("--all", help="Also show what does not differ.")] = False,
    answers: Annotated[int, typer.Option(min=0, max=20, help="Show the answers to so many held-out prompts.")] = 0,
    json: Json = False,
) -> None:
    """Show what differs between versions: metrics, how they were made, cost. Exit code 4 when one does not exist."""
    with http_address(CliSettings()) as address, Edge(address) as edge:
        asked = {"versions": ",".join(versions), "everything": str(everything).lower(), "answers": answers}
        with refusals(json):
            found = edge.get(Comparison, "/comparison", **asked)
        costs = [_cost(edge, version.job_id) for version in found.versions]
    if json:
        print_json({**found.model_dump(mode="json"), "costs": costs})
    else:
        _print_comparison(found, costs)


@app.command(example="neuroweaver models recommend support-router --goal quality=0.7,latency=0.3")
def recommend(
    name: Annotated[str, typer.Argument(help="Name of the model.", metavar="NAME")],
    goal: Annotated[str, typer.Option(help="quality, latency or size; or several with weights.")] = "quality",
    metric: Annotated[str | None, typer.Option(help="The metric that means quality.")] = None,
    json: Json = False,
) -> None:
    """Recommend a version for a goal, with reasons and what was not measured. Exit code 4 when the model does not exist."""
    with http_address(CliSettings()) as address, Edge(address) as edge, refusals(json):
        found = edge.get(Recommendation, f"{model_path(name)}/recommendation", goal=goal, metric=metric)
    if json:
        print_json(found)
        return
    print_line(found.version or "no version")
    print_line(f"confidence: {found.confidence}")
    for reason in found.reasons:
        print_line(f"- {reason}")
    print_table(
        ("version", "score", *found.metrics),
        [(one.id, f"{one.score:.2f}", *(f"{one.values[name]:.4g}" for name in found.metrics)) for one in found.considered],
        title="\nConsidered",
    )
    for missing in found.missing:
        say(missing)


def _cost(edge: Edge, job_id: str) -> dict[str, Any] | None:
    """Return what the job used; None if it is unknown here."""
    job = edge.find(dict[str, Any], job_path(job_id)) or {}
    usage = job.get("usage")
    return usage if isinstance(usage, dict) else None


def _print_comparison(found: Comparison, costs: Sequence[dict[str, Any] | None]) -> None:
    names = [version.id for version in found.versions]
    rows = [[metric.name, *_cells(metric)] for metric in found.metrics]
    print_table(("metric", *names), rows, title="Metrics, against the first")
    rows = [
        [field.field, *("" if value is None else str(value) for value in field.values)] for field in found.configuration
    ]
    rows.append(["seconds of the job", *("" if cost is None else f"{cost['seconds']:.0f}" for cost in costs)])
    if any(cost and cost["costs"] for cost in costs):
        rows.append(["cost of the job", *(_amounts(cost) for cost in costs)])
    print_table(("how it was made", *names), rows, title="\nHow they were made")
    for row in found.answers:
        print_text(f"\n{row.prompt}")
        print_table(("version", "answer"), [("(reference)", row.reference), *zip(names, row.answers, strict=True)])
    for remark in found.remarks:
        say(remark)


def _cells(metric: ComparedMetric) -> list[str]:
    cells = []
    for value, change in zip(metric.values, metric.changes, strict=True):
        text = "" if value is None else _value(metric.name, value)
        cells.append(text if change is None else f"{text} {change.verdict}")
    return cells


def _value(name: str, value: MeasuredValue) -> str:
    bounds = None if value.low is None or value.high is None else (value.low, value.high)
    return metric_text(Metric(name, value.value, bounds))


def _amounts(cost: dict[str, Any] | None) -> str:
    return "" if cost is None else ", ".join(f"{amount:.4g} {currency}" for currency, amount in cost["costs"].items())
