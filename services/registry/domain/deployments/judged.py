"""Keeps which answers of a canary and of the version before were given to a judge, and what became of that.

A row is one job that judges. What was asked comes from the registry's own event, the outcome from facts of the services that execute
the job, of which the earliest of each kind counts (rule 2). A job that nobody here asked for decides nothing.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from schemas.base import EventData, Frozen
from schemas.deployments import DeploymentShadowed, PairsJudged, Shadow
from schemas.envelope import Event
from schemas.jobs import JobCancelled, JobFailed, JobRejected, StepCompleted
from schemas.results import JUDGE, JUDGE_MODEL_SHA256, RUBRIC_SHA256
from services.chassis.kernel.aggregate import AggregateType, Ref, State, opening
from services.registry.domain.deployments.analysis import interval

JUDGEMENT = "judgement"
PAIRS_TOLD = 50
"""The most digests of pairs that the evidence of a step names, those of the latest."""
COMPARE = "compare"
"""Kind and name of the step that judges."""
_PATIENCE = timedelta(seconds=60)
"""How much longer than its judge a job may take until it counts as lost."""
_JOB = re.compile(r"^.{1,80}\.shadow-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
_ENDED = (JobRejected, JobFailed, JobCancelled)


class Verdicts(Frozen):
    """What a job said about its pairs."""

    at: datetime
    event_id: str
    wins: int
    losses: int
    ties: int
    unjudged: int
    judge: str
    judge_model_sha256: str | None = None
    rubric_sha256: str | None = None

    @property
    def judged_by(self) -> tuple[str | None, ...]:
        """Who judged by what; verdicts of different judges are not added up."""
        return self.judge, self.judge_model_sha256, self.rubric_sha256


class JudgementState(State):
    """One job that judges pairs."""

    asked: DeploymentShadowed | None = None
    asked_at: datetime | None = None
    verdicts: Verdicts | None = None
    ended: bool = False
    """Whether it ended without a result."""

    def waits(self, shadow: Shadow, now: datetime) -> bool:
        """Return whether its result may still come."""
        if self.asked_at is None or self.verdicts is not None or self.ended:
            return False
        return now < self.due(shadow) + _PATIENCE

    def due(self, shadow: Shadow) -> datetime:
        """Return when its job has to have ended."""
        assert self.asked_at is not None
        return self.asked_at + timedelta(seconds=shadow.judge_seconds)


class Judgements(AggregateType):
    """How they are stored for the reconciler."""

    def __init__(self) -> None:
        super().__init__(JUDGEMENT, JudgementState, {"deployment": "text", "rollout": "bigint"})

    def values(self, state: JudgementState) -> Mapping[str, Any]:
        """Return the values of the query columns: a pure function of the state."""
        return {"deployment": state.asked and state.asked.deployment, "rollout": state.asked and state.asked.generation}


def judgement_ref(job_id: str) -> Ref:
    """Return the reference to a job that judges."""
    return Ref(JUDGEMENT, job_id)


def job_id_of(deployment: str, unique: str) -> str:
    """Return the id of a job that judges answers of a deployment; `unique` is a new id, which nobody can have used before."""
    return f"{deployment[:80]}.shadow-{unique}"


def told_judgement(data: EventData) -> Ref | None:
    """Return the job that judges about which an event of another service tells; None for other events."""
    outcome = isinstance(data, StepCompleted) and data.kind == COMPARE
    if not (outcome or isinstance(data, _ENDED)):
        return None
    job_id = str(getattr(data, "job_id"))  # noqa: B009 (of the types above)
    return judgement_ref(job_id) if _JOB.fullmatch(job_id) else None


def after_telling(state: JudgementState, event: Event) -> JudgementState:
    """Return the row after an event."""
    match event.data:
        case DeploymentShadowed() as asked:
            changed: dict[str, Any] = {"asked": asked, "asked_at": event.time, **opening(event)}
        case StepCompleted():
            changed = {"verdicts": _earlier(state.verdicts, _verdicts(event, event.data))}
        case _ if isinstance(event.data, _ENDED):
            changed = {"ended": True}
        case _:
            return state
    return state.model_copy(update=changed)


def _verdicts(event: Event, completed: StepCompleted) -> Verdicts | None:
    """Return what a step says; None if it lacks a count, so that a judge that says nothing decides nothing."""
    metrics, facts = completed.result.metrics, completed.result.facts
    counts = [metrics.get(name) for name in ("second_better", "first_better", "ties", "unjudged")]
    known = [int(count) for count in counts if count is not None and count >= 0]
    if len(known) < len(counts) or JUDGE not in facts:
        return None
    wins, losses, ties, unjudged = known
    return Verdicts(
        at=event.time, event_id=event.id, wins=wins, losses=losses, ties=ties, unjudged=unjudged, judge=facts[JUDGE],
        judge_model_sha256=facts.get(JUDGE_MODEL_SHA256), rubric_sha256=facts.get(RUBRIC_SHA256),
    )  # fmt: skip


def _earlier(known: Verdicts | None, found: Verdicts | None) -> Verdicts | None:
    both = [one for one in (known, found) if one is not None]
    return min(both, key=lambda one: (one.at, one.event_id), default=None)


def pairs_judged(states: Iterable[JudgementState]) -> PairsJudged | None:
    """Return what the latest judge said in all these jobs together; None if none said anything."""
    told = sorted(
        (
            (state.asked_at, state.asked, state.verdicts)
            for state in states
            if state.asked_at and state.asked and state.verdicts
        ),
        key=lambda one: (one[0], one[1].judgement),
    )
    if not told:
        return None
    latest = told[-1][2]
    counted = [(asked, said) for _, asked, said in told if said.judged_by == latest.judged_by]
    wins, losses = sum(said.wins for _, said in counted), sum(said.losses for _, said in counted)
    low, high = interval(wins, wins + losses) if wins + losses else (None, None)
    return PairsJudged(
        wins=wins, losses=losses, ties=sum(said.ties for _, said in counted), unjudged=sum(said.unjudged for _, said in counted),
        low=low, high=high, judge=latest.judge, judge_model_sha256=latest.judge_model_sha256, rubric_sha256=latest.rubric_sha256,
        pairs=tuple(asked.pairs.sha256 for asked, _ in counted)[-PAIRS_TOLD:],
    )  # fmt: skip
