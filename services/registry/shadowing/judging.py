"""Gives pairs of answers to judges: as an artifact and an own event, then as a job that the feedback service executes.

One process does so at a time, by an advisory lock. The event is the fact; the job is requested again under the same id until its outcome
is known, since who requests may die at any moment. A rollout waits for one job at a time.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from schemas.artifacts import ArtifactRef
from schemas.base import Frozen
from schemas.deployments import DeploymentRequested, Shadow
from schemas.gates import INCONCLUSIVE
from schemas.ids import new_id
from schemas.lines import AnswerPair
from schemas.requests import NO_DATASET, JobRequested
from services.chassis.kafka.publisher import outside_event
from services.chassis.postgres.exclusive import Exclusive
from services.chassis.postgres.turns import in_turn
from services.chassis.process.logging import get_logger
from services.chassis.process.repeated_failures import FailureLog
from services.chassis.serving.runtime import Runtime
from services.chassis.storage.artifacts.pairs import pairs_store
from services.registry.deploying.statements import OPEN
from services.registry.domain.deployments.analysis import judge_score
from services.registry.domain.deployments.deciding import shadowed
from services.registry.domain.deployments.judged import COMPARE, JudgementState, job_id_of, judgement_ref, pairs_judged
from services.registry.domain.deployments.state import DeploymentState, deployment_ref
from services.registry.locks import JUDGING_LOCK
from services.registry.shadowing import statements

_log = get_logger(__name__)


class _Rollout(NamedTuple):
    """A rollout whose canary is shadowed."""

    target: DeploymentRequested
    shadow: Shadow
    percent: float


class _AnotherHasThem(Exception):
    """Another process has given the same pairs to a judge."""


@dataclass
class Judging:
    """What one process does of it."""

    runtime: Runtime
    _requested: set[str] = field(default_factory=set)
    """Jobs that this process has requested."""

    async def run(self, stop: asyncio.Event) -> None:
        """Give pairs to judges until `stop`."""
        await in_turn(
            self.runtime.engine, JUDGING_LOCK, self.once, stop, FailureLog(_log), "answers could not be given to a judge"
        )

    async def once(self, session: Exclusive) -> None:
        """Look once at every rollout. Raises the errors of database, broker and store; the next look goes on from there."""
        rows: list[Any] = list(await session.execute(OPEN))
        now = rows[0][2] if rows else None
        found = {key: _rollout(DeploymentState.stored(state)) for key, state, _ in rows}
        rollouts = {name: one for name, one in found.items() if one is not None}
        waiting = await self._waiting(session, rollouts)
        if not rollouts or now is None:
            return
        asked = await _judgements(session, rollouts)
        self._requested &= {state.asked.judgement for states in asked.values() for state in states if state.asked}
        for name, rollout in rollouts.items():
            states = asked.get(name, ())
            open_ones = [state for state in states if state.waits(rollout.shadow, now)]
            if open_ones:
                for state in open_ones:
                    await self._request(state, rollout)
            elif _is_open(rollout.shadow, states) and waiting.get(name, 0) >= _batch(rollout.shadow):
                await self._give(session, name, rollout)

    async def _waiting(self, session: Exclusive, rollouts: Mapping[str, _Rollout]) -> Mapping[str, int]:
        """Return how many pairs of each rollout no judge has got, and forget those of rollouts that have ended."""
        found, ended = Counter[str](), False
        rows: list[Any] = list(await session.execute(statements.COUNTED))
        for name, rollout, _, _, waiting in rows:
            now = rollouts.get(name)
            if now is None or now.target.generation != rollout:
                ended = True
            else:
                found[name] += waiting
        if ended:
            await session.execute(statements.FORGET, _keys(rollouts))
        return found

    async def _give(self, session: Exclusive, name: str, rollout: _Rollout) -> None:
        wanted = {"deployment": name, "rollout": rollout.target.generation, "most": _batch(rollout.shadow)}
        rows: list[Any] = list(await session.execute(statements.WAITING, wanted))
        pairs = [AnswerPair.model_validate_json(pair) for _, pair in rows]
        artifact = await asyncio.to_thread(_stored, self.runtime.settings.artifacts_uri, pairs)
        job_id = job_id_of(name, new_id())
        async with self.runtime.transact([deployment_ref(name), judgement_ref(job_id)]) as command:
            state = command.unit.states[deployment_ref(name)]
            assert isinstance(state, DeploymentState)
            decision = shadowed(state, rollout.target.generation, rollout.percent, artifact, len(pairs), job_id)
            if decision is None:
                return
            given = await command.connection.execute(statements.GIVEN, {"responses": [response for response, _ in rows]})
            if len(given.all()) < len(rows):
                raise _AnotherHasThem
            command.unit.apply(decision)
        _log.info("answers are given to a judge", deployment=name, pairs=len(pairs), job_id=job_id)

    async def _request(self, state: JudgementState, rollout: _Rollout) -> None:
        """Request a job, unless this process did: the same request under the same id is the same job."""
        assert state.asked is not None
        job_id = state.asked.judgement
        if job_id not in self._requested:
            data = JobRequested(job_id=job_id, request=_job(state, rollout))
            source = self.runtime.domain.source
            await self.runtime.publisher.publish(outside_event(source, data, correlation_id=job_id, subject=job_id))
            self._requested.add(job_id)


def _rollout(state: DeploymentState) -> _Rollout | None:
    target = state.target
    if target is None or state.percent is None or target.rollout.shadow is None:
        return None
    return _Rollout(target, target.rollout.shadow, state.percent)


def _is_open(shadow: Shadow, states: Sequence[JudgementState]) -> bool:
    """Return whether what judges said so far leaves it open how the canary answers."""
    return judge_score(shadow, pairs_judged(states)).verdict == INCONCLUSIVE


def _batch(shadow: Shadow) -> int:
    """Return how many pairs a judge gets at a time: enough for a verdict, but a step asks for at most ten jobs."""
    return max(min(shadow.least_pairs, shadow.most_pairs), -(-shadow.most_pairs // 10))


async def _judgements(session: Exclusive, rollouts: Mapping[str, _Rollout]) -> Mapping[str, Sequence[JudgementState]]:
    found = defaultdict[str, list[JudgementState]](list)
    for (text,) in list(await session.execute(statements.JUDGEMENTS, _keys(rollouts))):
        state = JudgementState.stored(text)
        if state.asked is not None:
            found[state.asked.deployment].append(state)
    return found


def _keys(rollouts: Mapping[str, _Rollout]) -> Mapping[str, object]:
    return {"deployments": list(rollouts), "rollouts": [one.target.generation for one in rollouts.values()]}


def _stored(artifacts_uri: str, pairs: Sequence[Frozen]) -> ArtifactRef:
    with TemporaryDirectory(prefix="answer-pairs-") as folder:
        lines = "".join(f"{pair.model_dump_json(exclude_defaults=True)}\n" for pair in pairs)
        (Path(folder) / AnswerPair.FILE).write_text(lines, encoding="utf-8")
        return pairs_store(artifacts_uri).put(Path(folder))


def _job(state: JudgementState, rollout: _Rollout) -> dict[str, Any]:
    """Return the request of the job, the same whoever writes it and whenever."""
    assert state.asked is not None
    asked, target = state.asked, rollout.target
    return {
        "job_id": asked.judgement,
        "requester": f"deployment {asked.deployment}"[:256],
        "pipeline": [{"name": COMPARE, "kind": COMPARE}],
        "base_model": target.base_model,
        "dataset": {"reference": NO_DATASET},
        "comparison": {"pairs": asked.pairs.model_dump(mode="json")},
        "feedback": rollout.shadow.feedback.model_dump(mode="json"),
        "register_as": asked.model,
        "alias": None,
        "deadline": state.due(rollout.shadow).isoformat(),
    }
