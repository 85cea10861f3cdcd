"""Makes each attempt that fails leave its report, however its process ended."""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from schemas.artifacts import ArtifactRef
from schemas.jobs import StepFault
from schemas.progress import StepProgressed
from services.chassis.executor.folders import log_of
from services.chassis.executor.runner import Failed, Outcome, StepRunner, Work, WorkContext
from services.chassis.executor.series import TimedSeries
from services.chassis.process.logging import get_logger
from services.chassis.reports.failure_report import failure_report
from services.chassis.reports.reported import FILE
from services.chassis.reports.sections import Resources
from services.chassis.storage.artifacts.store import ArtifactStore

_log = get_logger(__name__)


class ReportsFailures:
    """A runner whose faults name a report in the artifact store, made from the progress of the attempt.

    A report that cannot be stored changes nothing else about the fault; the log of the attempt says why.
    """

    def __init__(self, runner: StepRunner) -> None:
        self._runner = runner

    async def run(self, work: Work, context: WorkContext) -> Outcome:
        """Do the work, and leave a report if it fails."""
        course = Course()
        context.on_progress(course.note)
        outcome = await self._runner.run(work, context)
        if not isinstance(outcome, Failed):
            return outcome
        make: Callable[[], ArtifactRef] = lambda: course.store(work, outcome.fault, context.settings.artifacts_uri)  # noqa: E731
        try:
            report = await asyncio.to_thread(make)
        except Exception as error:
            _log.exception("the report of a failed attempt could not be stored")
            await asyncio.to_thread(_note, work, context, error)
            return outcome
        return Failed(outcome.fault.model_copy(update={"report": report}))


def _note(work: Work, context: WorkContext, error: Exception) -> None:
    asked = work.request
    log = log_of(context.settings.home, context.service, asked.job_id, asked.step, asked.attempt)
    with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as file:  # there may be no room for it either
        file.write(f"the report of this failed attempt could not be stored ({type(error).__name__})\n")


class Course:
    """What an attempt has reported of itself."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._last: StepProgressed | None = None
        self._memory, self._speed = TimedSeries(), TimedSeries()
        self._peak = 0

    def note(self, progress: StepProgressed) -> None:
        """Note a report of progress."""
        seconds = time.monotonic() - self._begun
        self._last = progress
        if progress.memory_bytes is not None:
            self._memory.add(seconds, progress.memory_bytes / 1e9)
            self._peak = max(self._peak, progress.memory_bytes)
        if progress.tokens_per_second is not None:
            self._speed.add(seconds, progress.tokens_per_second)

    def store(self, work: Work, fault: StepFault, artifacts: str) -> ArtifactRef:
        """Store the report of an attempt that has failed now."""
        used = Resources(time.monotonic() - self._begun, self._peak, self._memory.points, self._speed.points)
        text = failure_report(work.request, fault, self._last, used, datetime.now(UTC))
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / FILE).write_text(text, encoding="utf-8")
            return ArtifactStore(artifacts).put(Path(name))
