"""Reads what the processes of a job's steps wrote, whether they run or have ended, and follows those that run."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from schemas.jobs import StepFault
from schemas.results import REPORT
from schemas.steps import EXECUTOR_OF
from services.chassis.serving.api.logs import LogPart
from services.cli.edge import Edge, RequestRefused
from services.orchestrator.domain.state import ENDED
from services.orchestrator.views import AttemptView, JobView, StepView

_POLL_SECONDS = 0.5
_OVER = ("completed", "failed", "cancelled", "skipped")
"""Statuses of steps that write no further line, unless a failed one is tried again."""


@dataclass(frozen=True)
class AttemptLog:
    """Lines of one attempt's log."""

    step: str
    attempt: int
    status: str
    lines: tuple[str, ...]
    fault: StepFault | None = None
    missing: str | None = None
    """Why the log cannot be read here."""
    no_report: str | None = None
    """Why a completed attempt left no report."""


class JobLogs:
    """The logs of one job's attempts, or of those of one step; each line is returned once."""

    def __init__(self, edge: Edge, job_id: str, step: str | None, last: int) -> None:
        """`last`: the most lines of a log that were written before it is first read."""
        self._edge, self._job_id, self._step, self._last = edge, job_id, step, last
        self._read: dict[tuple[str, int], int] = {}
        """Bytes of each log that were returned."""
        self._over: set[tuple[str, int]] = set()
        """Attempts that have ended, and whose log was read to its end or cannot be read."""
        self._missed: set[tuple[str, int]] = set()
        """Attempts of which it was said that their log cannot be read."""

    def news(self, job: JobView, *, from_start: bool = False) -> Iterator[AttemptLog]:
        """Yield what was written since the last call, by steps and attempts; of a log not read before, its last lines.

        `from_start`: such a log is read from its beginning, because it began after the last call.
        """
        for step in job.steps:
            if self._step in (None, step.name):
                for attempt in step.attempts:
                    if (step.name, attempt.attempt) not in self._over and (attempt.started_at or attempt.fault):
                        yield from self._of(step, attempt, from_start=from_start)

    def follow(self, job: JobView, wait: Callable[[float], object] = time.sleep) -> Iterator[AttemptLog]:
        """Yield what is written until the job, or the one step, has ended; begins with the last lines of every log."""
        yield from self.news(job)
        while not self._ended(job):
            wait(_POLL_SECONDS)
            job = self._edge.get(JobView, f"/training/{quote(self._job_id, safe='')}")
            yield from self.news(job, from_start=True)

    def _ended(self, job: JobView) -> bool:
        return job.status in ENDED or any(step.name == self._step and step.status in _OVER for step in job.steps)

    def _of(self, step: StepView, attempt: AttemptView, *, from_start: bool) -> Iterator[AttemptLog]:
        key = (step.name, attempt.attempt)

        def log(lines: tuple[str, ...], missing: str | None = None) -> AttemptLog:
            no_report = step.facts.get(REPORT) if attempt.outcome == "completed" else None
            return AttemptLog(*key, attempt.outcome or "running", lines, attempt.fault, missing, no_report)

        first = key not in self._read
        try:
            if EXECUTOR_OF[step.kind] == "registry":
                raise _Unreadable(f"a {step.kind} step runs in the service itself and has no log")
            part = self._part(step, attempt, self._read.get(key, 0 if from_start else None))
            while first or part.next != self._read[key]:
                yield log(part.lines[-self._last :] if first and not from_start else part.lines)
                self._read[key], first = part.next, False
                part = self._part(step, attempt, part.next)
        except _Unreadable as why:
            recorded = attempt.fault.log_tail if attempt.fault else ()
            if recorded:
                yield log(recorded[-self._last :])
            elif key not in self._missed:
                yield log((), str(why))
            self._missed.add(key)
        if attempt.outcome:
            self._over.add(key)

    def _part(self, step: StepView, attempt: AttemptView, after: int | None) -> LogPart:
        names = "/".join(quote(name, safe="") for name in (EXECUTOR_OF[step.kind], self._job_id, step.name))
        try:
            return self._edge.get(LogPart, f"/logs/{names}/{attempt.attempt}", after=after)
        except RequestRefused as refusal:
            if refusal.status != 404:
                raise
            worker = f"worker {attempt.worker}" if attempt.worker else "its worker"
            raise _Unreadable(f"it cannot be read at this address; {worker} has it as long as it is kept") from refusal


class _Unreadable(Exception):
    """A log that nobody at this address has."""
