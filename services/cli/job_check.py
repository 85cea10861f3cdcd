"""Examines a request without sending it, and shows the plan that it would get."""

from datetime import UTC, datetime
from typing import Any

import typer

from schemas.steps import CompressSettings, PlannedStep, StepSettings, TrainSettings
from services.cli.exits import Exit
from services.cli.job_refusal import print_reasons
from services.cli.output import print_json, print_table, say
from services.orchestrator.domain.unevaluated import unevaluated
from services.orchestrator.domain.validation import RejectedRequest, examine

_NOT_CHECKED = (
    "whether job_id is free",
    "whether base_model and dataset exist and may be read",
    "whether the rows have the named columns",
    "whether a judge answers",
    "whether the operator has set prices for a budget",
    "whether memory and disk suffice",
)


def examine_only(request: dict[str, Any], json: bool) -> None:
    """Print the plan of a request. Ends the command with exit code 1 if the request is refused."""
    examined = examine(request, (), datetime.now(UTC))
    if isinstance(examined, RejectedRequest):
        if json:
            print_json({"valid": False, "reasons": examined.reasons})
        else:
            print_reasons(examined.reasons)
        raise typer.Exit(int(Exit.FAILED))
    notes = list(unevaluated(examined.request, examined.plan))
    if json:
        found = {"valid": True, "request": examined.request, "plan": examined.plan, "notes": notes}
        print_json({**found, "not_checked": _NOT_CHECKED})
        return
    print_table(
        ("step", "kind", "waits for", "reads"),
        [_plan_row(step) for step in examined.plan],
        least=("waits for",),
    )
    say("the request is valid; nothing was started")
    for note in notes:
        say(f"Note: {note}.")
    say(f"Not checked, because the services check it when the job runs: {'; '.join(_NOT_CHECKED)}.")


def _plan_row(step: PlannedStep) -> tuple[str, ...]:
    method = _method(step.settings)
    return (
        step.name,
        f"{step.kind} ({method})" if method else step.kind,
        ", ".join(step.needs),
        ", ".join(step.inputs.values()),
    )


def _method(settings: StepSettings) -> str | None:
    if isinstance(settings, CompressSettings):
        return settings.compression.method
    if not isinstance(settings, TrainSettings):
        return None
    field = next(name for name, value in settings if value is not None and value is settings.method_settings)
    return {"training": "sft", "preference": "dpo"}.get(field, field)
