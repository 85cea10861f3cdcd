"""Keeps what is to be written of each run, and writes it with MLflow's client: one run for each step of a job.

A run is found by its tag, so that a later attempt, on whatever machine, continues it.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from services.chassis.process.redaction import redacted
from services.trainer.tracking.messages import Begun, Ended, Lost, Measured, Told, Where

RUN_TAG = "neuroweaver.run"
_WAITING = 10_000
"""Measurements of a run that wait; the oldest are dropped."""
_ENDED_RUNS = 1000
"""Ended runs that wait to be written; the oldest are dropped."""
_BATCH_METRICS, _BATCH_PARAMS = 1000, 100
"""The most that a server accepts at once."""
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")
"""Errors by which a server refuses what it was sent; to send it again is of no use."""
_TEXT = 500


@dataclass
class _Run:
    """A run of which something is still to be written or to come."""

    begun: Begun | None
    """Not yet written."""
    id: str | None = None
    waiting: deque[Measured] = field(default_factory=deque)
    ended: Ended | None = None


class Runs:
    """The runs at one tracking server; nothing is sent before `write`."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._client: Any = None
        self._experiment: str | None = None
        self._runs: dict[str, _Run] = {}
        self._dropped = 0
        self.trouble: str | None = None
        """Why the last write failed; None if it did not."""

    def take(self, message: Told) -> None:
        """Note a message. A run that has not begun here is unknown: its measurements are dropped."""
        run = self._runs.get(message.run)
        match message:
            case Begun() if run is not None:
                run.begun, run.ended = message, None
            case Begun():
                self._runs[message.run] = _Run(message)
            case Lost():
                self._forget(message.run)
            case Ended() if run is not None:
                run.ended = message
                self._forget_some()
            case Measured() if run is not None:
                run.waiting.append(message)
                if len(run.waiting) > _WAITING:
                    run.waiting.popleft()
                    self._dropped += 1
            case Measured():
                self._dropped += 1

    def counted(self) -> int:
        """Return how many measurements were dropped since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def write(self) -> str | None:
        """Write what waits; returns what is wrong if the server is away. What it refuses is dropped."""
        refused: str | None = None
        for name, run in list(self._runs.items()):
            try:
                self._write(name, run)
            except Exception as error:
                said = redacted(f"{type(error).__name__}: {error}")[:_TEXT]
                if getattr(error, "error_code", None) not in _REFUSALS:
                    self.trouble = said
                    return said
                self._dropped += len(run.waiting)
                run.waiting.clear()
                run.begun, self._experiment, refused = None, None, said
            if run.ended is not None:
                del self._runs[name]
        self.trouble = refused
        return refused

    def _write(self, name: str, run: _Run) -> None:
        if run.begun is not None:
            run.id = self._begin(name, run.begun)
            run.begun = None
        if run.id is None:
            return
        while run.waiting:
            some = self._next(run)
            self._client.log_batch(run.id, metrics=some[1])
            for _ in range(some[0]):
                run.waiting.popleft()
        if run.ended is not None:
            self._end(run.id, run.ended)

    def _begin(self, name: str, begun: Begun) -> str:
        """Return the id of the run, which is continued if there is one."""
        from mlflow.entities import Param, RunTag

        experiment = self._experiment_id()
        found = self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{name}'", max_results=1)
        if found:
            run_id = str(found[0].info.run_id)
            self._client.update_run(run_id, status="RUNNING")
            self._client.log_batch(run_id, tags=[RunTag(*tag) for tag in begun.tags.items()])
            if found[0].data.params:  # they never change
                return run_id
        else:
            tags = {RUN_TAG: name, **begun.tags}
            run_id = str(self._client.create_run(experiment, begun.at, tags, run_name=name).info.run_id)
        params = [Param(*param) for param in begun.params.items()]
        for first in range(0, len(params), _BATCH_PARAMS):
            self._client.log_batch(run_id, params=params[first : first + _BATCH_PARAMS])
        return run_id

    def _next(self, run: _Run) -> tuple[int, list[Any]]:
        """Return how many measurements go into one batch, and their values."""
        from mlflow.entities import Metric

        metrics: list[Any] = []
        for count, one in enumerate(run.waiting):
            if metrics and len(metrics) + len(one.values) > _BATCH_METRICS:
                return count, metrics
            metrics += [Metric(name, value, one.at, one.step) for name, value in one.values.items()]
        return len(run.waiting), metrics

    def _end(self, run_id: str, ended: Ended) -> None:
        from mlflow.entities import Metric, RunTag

        metrics = [Metric(name, value, ended.at, 0) for name, value in ended.metrics.items()]
        tags = [RunTag(*tag) for tag in ended.tags.items()]
        self._client.log_batch(run_id, metrics=metrics[:_BATCH_METRICS], tags=tags[:_BATCH_PARAMS])
        if ended.status == "SCHEDULED":
            self._client.update_run(run_id, status=ended.status)
        else:
            self._client.set_terminated(run_id, ended.status, ended.at)

    def _experiment_id(self) -> str:
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(self._where.uri)
        if self._experiment is None:
            known = self._client.get_experiment_by_name(self._where.experiment)
            self._experiment = known.experiment_id if known else self._client.create_experiment(self._where.experiment)
        return self._experiment

    def _forget(self, name: str) -> None:
        run = self._runs.pop(name, None)
        self._dropped += len(run.waiting) if run else 0

    def _forget_some(self) -> None:
        ended = [name for name, run in self._runs.items() if run.ended is not None]
        for name in ended[:-_ENDED_RUNS]:
            self._forget(name)
