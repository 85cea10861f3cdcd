"""Makes each finished step leave its report, whatever its kind."""

import logging
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from schemas.artifacts import ArtifactRef
from schemas.base import EventData
from schemas.jobs import StepResult
from schemas.results import REPORT
from services.chassis.executor.child import Context, Handler
from services.chassis.reports.contents import contents
from services.chassis.reports.sections import Resources
from services.chassis.reports.step_report import step_report

_log = logging.getLogger(__name__)
FILE = "report.html"
"""Name of the report in its artifact."""


def reported(handler: Handler) -> Handler:
    """Return a handler that also leaves a report as the output `report`.

    A report that cannot be made does not fail the step: the log has the error, and the fact `report` names it.
    """

    def run(context: Context) -> tuple[StepResult, Sequence[EventData]]:
        begun = time.monotonic()
        made = handler(context)
        result, events = made if isinstance(made, tuple) else (made, ())
        try:
            report = _store(context, result, time.monotonic() - begun)
        except Exception as error:
            _log.exception("the step's report could not be made")
            said = f"it could not be made ({type(error).__name__})"
            return result.model_copy(update={"facts": {**result.facts, REPORT: said}}), events
        return result.model_copy(update={"outputs": {**result.outputs, REPORT: report}}), events

    return run


def _store(context: Context, result: StepResult, seconds: float) -> ArtifactRef:
    memory = [(second, used / 1e9) for second, used in context.memory.points]
    used = Resources(seconds, _peak_bytes(), memory, context.speed.points)
    text = step_report(context.task, result, contents(result), used, datetime.now(UTC))
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / FILE).write_text(text, encoding="utf-8")
        return context.store.put(Path(name))


def _peak_bytes() -> int:
    """Return the most resident memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
