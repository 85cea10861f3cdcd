"""Renders the report of an attempt that failed: why and what to do, the course so far, memory, the configuration and its inputs."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from schemas.jobs import StepFault, StepRequested
from schemas.progress import StepProgressed
from schemas.results import DATASET_NOTES, ERASED_INPUTS, ROWS_LEFT_OUT, VERSION_DEPRECATED
from services.chassis.reports.chart import Points
from services.chassis.reports.elements import lines, page, paragraph, scroll, section, table
from services.chassis.reports.sections import (
    Resources,
    curves_section,
    duration,
    pairs_section,
    resources_section,
    setting_rows,
)
from services.chassis.reports.texts import safe

_CAUSES = {
    "user": "the request or its data",
    "memory": "memory ran out",
    "hung": "it reported no progress",
    "infrastructure": "the machine, a service that it needs, or a program",
}


def failure_report(
    asked: StepRequested, fault: StepFault, last: StepProgressed | None, used: Resources, failed: datetime
) -> str:
    """Return the report as HTML text; `last` is the last progress that the attempt reported."""
    done = f"after {last.done} of {last.of} {last.unit}" if last else "before it reported any progress"
    peak = f" and used at least {used.peak_bytes / 1e9:.2f} GB of memory" if used.peak_bytes else ""
    return page(
        title=f"{asked.step} failed · {asked.job_id} · NeuroWeaver",
        kicker=f"NeuroWeaver · step of job {asked.job_id}",
        heading=f"{asked.step} failed" if asked.step == asked.kind else f"{asked.step} ({asked.kind}) failed",
        lede=f"Attempt {asked.attempt} ran for {duration(used.seconds)}{peak}. It failed {done}.",
        sections=(
            _failure(fault),
            _rows(asked),
            curves_section({"loss": _losses(last)} if last and last.losses else {}),
            resources_section(used),
            pairs_section(
                "configuration",
                "Configuration",
                ("setting", "value"),
                setting_rows("", asked.settings.model_dump(mode="json")),
            ),
            pairs_section(
                "digests",
                "Artifacts, by SHA-256",
                ("artifact", "digest"),
                [(f"read {name}", ref.sha256) for name, ref in asked.inputs.items()],
            ),
            section("log", "End of its log", lines("\n".join(fault.log_tail))) if fault.log_tail else "",
        ),
        footer=f"<p>Failed {failed:%Y-%m-%d %H:%M} UTC.</p>",
    )


def _failure(fault: StepFault) -> str:
    said = paragraph(f"Cause: {_CAUSES.get(fault.cause, fault.cause)}.") + paragraph(fault.message)
    if fault.reasons:
        rows = [(reason.field, reason.value or "", reason.message, reason.remedy) for reason in fault.reasons]
        said += scroll("Reasons", table(("field", "value", "what is wrong", "what to do"), rows))
    return section("failure", "What went wrong", said)


def _rows(asked: StepRequested) -> str:
    """Return what earlier steps said about the rows that this one read."""
    said = [(step, result.facts[name]) for step, result in asked.results.items() for name in _SAID if name in result.facts]
    items = "".join(f"<li>{safe(f'{step}: {text}')}</li>" for step, text in said)
    return section("rows", "Rows left out before, and what else was noticed", f"<ul>{items}</ul>") if items else ""


_SAID: Sequence[str] = (ROWS_LEFT_OUT, DATASET_NOTES, VERSION_DEPRECATED, ERASED_INPUTS)


def _losses(last: StepProgressed) -> Points:
    """Return the losses so far at the middle of the steps that each is the mean of."""
    width = last.done / len(last.losses)
    return list(_placed(last.losses, width))


def _placed(losses: Iterable[float], width: float) -> Iterable[tuple[float, float]]:
    return (((number + 0.5) * width, loss) for number, loss in enumerate(losses))
