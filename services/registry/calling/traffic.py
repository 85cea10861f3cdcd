"""Counts what the callers of a canary get, in this process, and stores the counts where the reconciler adds up those of all processes."""

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.ids import new_id
from services.registry.calling.statements import STORE_TRAFFIC
from services.registry.domain.deployments.analysis import BOUNDS, Traffic


class Step(NamedTuple):
    """A step of a rollout, and which of its two versions is counted."""

    deployment: str
    rollout: int
    """The generation that is rolled out."""
    percent: float
    target: bool
    """Whether the version that is rolled out is counted, or the one before."""


_ONE = Traffic(requests=1)


@dataclass
class TrafficCounts:
    """The counts of one process."""

    process: str = field(default_factory=new_id)
    _counts: dict[Step, Traffic] = field(default_factory=dict)
    _stored: dict[Step, Traffic] = field(default_factory=dict)

    def answered(self, step: Step | None, seconds: float, *, says: bool) -> None:
        """Count an answer; `says`: whether it says anything."""
        latencies = [0] * (len(BOUNDS) + 1)
        latencies[bisect_left(BOUNDS, seconds)] = 1
        self._add(step, _ONE._replace(empty=0 if says else 1, latencies=tuple(latencies)))

    def failed(self, step: Step | None) -> None:
        """Count a request that got no answer, whether or not another server gave one."""
        self._add(step, _ONE._replace(errors=1))

    def of(self, step: Step) -> Traffic:
        """Return what was counted of a step."""
        return self._counts.get(step, Traffic())

    async def store(self, engine: AsyncEngine, current: Iterable[tuple[str, int]]) -> None:
        """Store what is new, and forget all rollouts that are not `current`. Raises the errors of the database."""
        alive = set(current)
        self._counts = {step: count for step, count in self._counts.items() if step[:2] in alive}
        new = {step: count for step, count in self._counts.items() if self._stored.get(step) != count}
        if new:
            async with engine.begin() as connection:
                await connection.execute(STORE_TRAFFIC, {"process": self.process, **_values(new)})
        self._stored = dict(self._counts)

    def _add(self, step: Step | None, one: Traffic) -> None:
        if step is not None:
            self._counts[step] = self.of(step).plus(one)


def _values(counts: Mapping[Step, Traffic]) -> Mapping[str, Any]:
    return {
        "deployments": [step.deployment for step in counts],
        "rollouts": [step.rollout for step in counts],
        "percents": [step.percent for step in counts],
        "targets": [step.target for step in counts],
        "requests": [count.requests for count in counts.values()],
        "errors": [count.errors for count in counts.values()],
        "empty": [count.empty for count in counts.values()],
        "latencies": [json.dumps(count.latencies) for count in counts.values()],
    }
