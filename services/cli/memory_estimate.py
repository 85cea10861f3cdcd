"""Shows the memory that a request's steps are estimated to take, next to what this machine has."""

from collections.abc import Sequence
from typing import Any

import typer

from schemas.requests import JobRequest
from schemas.steps import PlannedStep
from services.cli.base_models import local_base, local_judge
from services.cli.exits import Exit, stop_with
from services.cli.output import print_json, print_table, say

_GIB = 2**30


def show_estimate(request: JobRequest, plan: Sequence[PlannedStep], *, json: bool) -> None:
    """Print the estimates. Ends the command with exit code 1 if one is larger than the memory of the device."""
    found = _estimated(request, plan)
    if json:
        print_json({**found._asdict(), "steps": [step._asdict() for step in found.steps]})
    else:
        print_table(
            ("step", "kind", "rows at once", "tokens", "GiB", "largest parts"),
            [
                (step.step, step.kind, step.rows, step.length, f"{step.bytes / _GIB:.2f}", _largest(step.parts))
                for step in found.steps
            ],
            least=("largest parts",),
        )
        say(f"This machine's {found.device} has {found.available / _GIB:.2f} GiB.")
        say("Rows are counted with max_length tokens, all of them learnt; shorter ones take less.")
        say("Steps that are not named load no model.")
    if any(step.bytes > found.available for step in found.steps):
        raise typer.Exit(int(Exit.FAILED))


def _largest(parts: dict[str, int]) -> str:
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {size / _GIB:.2f}" for name, size in ordered[:3])


def _estimated(request: JobRequest, plan: Sequence[PlannedStep]) -> Any:
    try:
        from services.chassis.executor.child import UserFault
        from services.trainer import estimating
        from services.trainer.modelling.four_bits import without_bitsandbytes
    except ImportError as error:
        stop_with(Exit.FAILED, f"{error}: to estimate on this machine, pip install 'neuroweaver[trainer]'")
    without_bitsandbytes()
    base = local_base(request.base_model).folder
    named = request.distill.teacher if any(estimating.learns_from_teacher(step) for step in plan) else None
    teacher = None if named is None else local_base(named, "distill.teacher").folder
    judge = local_judge(request.feedback.judge) if any(map(estimating.judges_with_model, plan)) else None
    try:
        return estimating.estimate(request, plan, estimating.Folders(base, teacher, judge))
    except UserFault as fault:
        stop_with(Exit.FAILED, "\n".join(map(str, fault.reasons)))
