"""Tells the tracker about each attempt at the steps that make or measure a model."""

import time
from collections.abc import Mapping

from schemas.progress import StepProgressed
from services.chassis.executor.runner import Completed, Failed, Outcome, StepRunner, StopReason, Work, WorkContext
from services.trainer.tracking.described import (
    fault_tags,
    machine_values,
    name_of,
    params_of,
    result_metrics,
    result_tags,
    tags_of,
)
from services.trainer.tracking.messages import Begun, Ended, Lost, Measured
from services.trainer.tracking.tracker import Tracker

KINDS = ("train", "evaluate", "compress")
"""The kinds of steps that have runs."""


class Tracked:
    """A runner whose attempts are recorded as they go. Recording neither delays an attempt nor changes its outcome."""

    def __init__(self, runner: StepRunner, tracker: Tracker) -> None:
        self._runner, self._tracker = runner, tracker

    async def run(self, work: Work, context: WorkContext) -> Outcome:
        """Do the work, and tell its course and its end."""
        request = work.request
        if request.kind not in KINDS:
            return await self._runner.run(work, context)
        run = name_of(request)
        self._tracker.tell(Begun(run=run, at=_now(), params=params_of(request), tags=tags_of(request)))
        if request.kind == "train":
            self._follow(run, context)
        outcome: Outcome | BaseException | None = None
        try:
            outcome = await self._runner.run(work, context)
            return outcome
        except Exception as error:
            outcome = error
            raise
        finally:
            self._tracker.tell(_end(run, outcome, context))

    def _follow(self, run: str, context: WorkContext) -> None:
        def measured(step: int, values: Mapping[str, float]) -> None:
            found = {name: value for name, value in values.items() if name != "step"}
            self._tracker.tell(Measured(run=run, at=_now(), step=step, values=found))

        def progressed(progress: StepProgressed) -> None:
            if values := machine_values(progress):
                self._tracker.tell(Measured(run=run, at=_now(), step=progress.done, values=values))

        context.on_measured(measured)
        context.on_progress(progressed)


def _end(run: str, outcome: Outcome | BaseException | None, context: WorkContext) -> Ended | Lost:
    """Return how an attempt ended. A cancelled one counts as killed whatever it made, as the orchestrator sees it."""
    if context.lost.is_set():
        return Lost(run=run)
    if context.reason is StopReason.CANCEL:
        return Ended(run=run, at=_now(), status="KILLED")
    match outcome:
        case Completed(result):
            metrics, tags = result_metrics(result), result_tags(result)
            return Ended(run=run, at=_now(), status="FINISHED", metrics=metrics, tags=tags)
        case Failed(fault):
            return Ended(run=run, at=_now(), status="FAILED", tags=fault_tags(fault))
        case BaseException():
            return Ended(run=run, at=_now(), status="FAILED")
    return Ended(run=run, at=_now(), status="SCHEDULED")


def _now() -> int:
    return time.time_ns() // 1_000_000
