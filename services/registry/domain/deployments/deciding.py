"""Decides about a deployment: on what people ask, on what a driver observes, and on what was not ready in time."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from schemas.artifacts import ArtifactRef
from schemas.deployments import (
    Analysis,
    DeploymentAdvanced,
    DeploymentDegraded,
    DeploymentReady,
    DeploymentRequested,
    DeploymentRetired,
    DeploymentRolledBack,
    DeploymentShadowed,
)
from schemas.gates import FAILED, PASSED
from schemas.reasons import Reason, shown
from services.chassis.kernel.aggregate import Decision
from services.registry.domain.deployments.analysis import Measured, analysed, described
from services.registry.domain.deployments.state import DEADLINE, DeploymentState, decision_on, is_overdue, slot_of

GRACE_SECONDS = 10.0
"""A version that serves callers may not be ready for this long before the deployment counts as degraded: a process restarts faster."""
HOPELESS = frozenset(
    (
        "DigestMismatch",
        "ArtifactMissing",
        "BaseMissing",
        "WrongBase",
        "Unloadable",
        "EmptyAnswer",
        "SameAsBase",
        "AnswerDiffers",
    )
)
"""Reasons for which another try cannot help: such a target is given up at once if another version serves the callers."""
WRONG = "WrongModel"
MISSING = "Missing"


class Seen(NamedTuple):
    """What is known of a slot now."""

    served: str
    sha256: str
    state: str
    reason: str
    message: str
    unready_seconds: float = 0.0
    """For how long it has not been ready."""


NOWHERE = Seen("", "", "missing", MISSING, "the driver does not know the slot")


class DeploymentRefused(Exception):
    """A deployment cannot do what it was asked."""

    def __init__(self, field: str, value: object, message: str, remedy: str) -> None:
        self.reason = Reason(field=field, value=None if value is None else shown(value), message=message, remedy=remedy)
        super().__init__(str(self.reason))


def request(state: DeploymentState, wanted: DeploymentRequested) -> Decision | None:
    """Decide that a deployment is to serve what `wanted` says, whose generation does not count.

    Returns None if it is what the deployment does, or is about to do. Raises DeploymentRefused for a version of another model.
    """
    last = state.wish
    if last is not None and last.model != wanted.model:
        message = f"the deployment serves versions of {last.model}"
        raise DeploymentRefused("model", wanted.model, message, "give the deployment of another model another name")
    if last is not None and state.open and state.given_up is None and _asks(last) == _asks(wanted):
        return None
    return decision_on(wanted.model_copy(update={"generation": _next(state)}), wanted.deployment)


def retry(state: DeploymentState, by: str, reason: str) -> Decision:
    """Decide that what was given up is tried again. Raises DeploymentRefused if nothing was."""
    last = _open(state)
    if state.given_up is None:
        raise DeploymentRefused(
            "generation", last.generation, "the latest wish was not given up", "deploy a version instead"
        )
    wanted = last.model_copy(update={"generation": _next(state), "by": by, "reason": reason})
    return decision_on(wanted, last.deployment)


def roll_back(state: DeploymentState, by: str, reason: str, now: datetime) -> Decision:
    """Decide that the target is given up, or else that the deployment returns to the version before, which is still warm.

    Raises DeploymentRefused if there is no version to stay with or to return to.
    """
    last = _open(state)
    why = {"reason": "Aborted", "message": reason, "by": by}
    if state.target is not None and state.active is not None:
        return _given_up(state.target, state.active, why)
    warm = state.returns_to(now)
    if state.target is None and state.active is not None and warm is not None:
        return _given_up(state.active, warm, why)
    message = (
        "no other version is kept warm" if state.target is None else "no version has served the deployment's callers yet"
    )
    raise DeploymentRefused("version", last.version, message, "deploy another version, or retire the deployment")


def advance(state: DeploymentState, by: str, reason: str) -> Decision:
    """Decide that a canary gets its next share of the callers, or all of them, whatever was measured.

    Raises DeploymentRefused if no canary is under way.
    """
    last = _open(state)
    if state.target is None or state.percent is None:
        raise DeploymentRefused(
            "version", last.version, "no canary is under way", "deploy a version with the strategy canary"
        )
    return _further(state, state.target, None, by, reason)


def retire(state: DeploymentState, by: str, reason: str) -> Decision:
    """Decide that a deployment serves nobody any more. Raises DeploymentRefused if it is retired."""
    last = _open(state)
    told = DeploymentRetired(**_about(last), by=by, reason=reason)
    return decision_on(told, last.deployment)


def shadowed(
    state: DeploymentState, rollout: int, percent: float, pairs: ArtifactRef, count: int, job_id: str
) -> Decision | None:
    """Decide that pairs of answers of a step are judged; None if that rollout has ended meanwhile."""
    target, active = state.target, state.active
    if target is None or active is None or state.percent is None or target.generation != rollout:
        return None
    told = DeploymentShadowed(
        **_about(target), judgement=job_id, pairs=pairs, count=count, percent=percent, active_generation=active.generation,
        active_version=active.version,
    )  # fmt: skip
    return decision_on(told, target.deployment)


def overdue(state: DeploymentState, now: datetime) -> Decision | None:
    """Decide about a target that was not ready in time; None if there is none."""
    if not is_overdue(state, now) or state.target is None:
        return None
    seconds = state.target.rollout.deadline_seconds
    late = "was not ready" if state.percent is None else f"got no verdict at {state.percent:g} % of the callers"
    why = {"reason": DEADLINE, "message": f"{state.target.version} {late} within {seconds:g} s"}
    return _without(state, state.target, why)


def observed(
    state: DeploymentState, slots: Mapping[str, Seen], now: datetime, measured: Measured | None = None
) -> Decision | None:
    """Decide on what is seen of a deployment's slots, by their names, and measured of a canary; None if it changes nothing."""
    if state.target is not None and not is_overdue(state, now):
        decision = _on_target(state, state.target, slots.get(slot_of(state.target), NOWHERE), now, measured or Measured())
        if decision is not None:
            return decision
    return None if state.active is None else _on_active(state, state.active, slots, now)


def _on_target(
    state: DeploymentState, target: DeploymentRequested, seen: Seen, now: datetime, measured: Measured
) -> Decision | None:
    why = trouble(target, seen)
    if why is not None:
        hopeless = seen.state == "failed" and seen.reason in HOPELESS
        gone = state.percent is not None and seen.unready_seconds >= GRACE_SECONDS
        return _without(state, target, why) if (hopeless or gone) and not state.is_told(target) else None
    if not state.is_canary or state.active is None or state.is_told(state.active):
        return decision_on(_ready(target, state), target.deployment)
    if state.percent is None or state.step_since is None:
        return decision_on(DeploymentAdvanced(**_about(target), percent=target.rollout.steps[0]), target.deployment)
    said = analysed(target.rollout, state.percent, (now - state.step_since).total_seconds(), measured)
    if said.verdict == PASSED:
        return _further(state, target, said)
    late = state.target_due is not None and now >= state.target_due
    if said.verdict != FAILED and not late:
        return None
    reason = "AnalysisFailed" if said.verdict == FAILED else "AnalysisInconclusive"
    return _given_up(target, state.active, {"reason": reason, "message": described(said), "analysis": said})


def _on_active(
    state: DeploymentState, active: DeploymentRequested, slots: Mapping[str, Seen], now: datetime
) -> Decision | None:
    seen = slots.get(slot_of(active), NOWHERE)
    why = trouble(active, seen)
    if why is None:
        return decision_on(_ready(active, state), active.deployment) if state.is_told(active) else None
    if state.is_told(active) or seen.unready_seconds < GRACE_SECONDS:
        return None
    warm = state.returns_to(now)
    if state.target is None and warm is not None and trouble(warm, slots.get(slot_of(warm), NOWHERE)) is None:
        return _given_up(active, warm, why)
    return decision_on(DeploymentDegraded(**_about(active), **why), active.deployment)


def _further(
    state: DeploymentState, target: DeploymentRequested, said: Analysis | None, by: str | None = None, reason: str = ""
) -> Decision:
    """Give a canary its next share of the callers; after the last it serves them all."""
    share = next((one for one in target.rollout.steps if state.percent is None or one > state.percent), None)
    if share is None:
        return decision_on(_ready(target, state).model_copy(update={"analysis": said}), target.deployment)
    told = DeploymentAdvanced(**_about(target), percent=share, analysis=said, by=by, reason=reason)
    return decision_on(told, target.deployment)


def trouble(wish: DeploymentRequested, seen: Seen) -> dict[str, str] | None:
    """Return why a slot does not serve what it should; None if it does."""
    if seen.state == "ready" and (seen.served, seen.sha256) == (f"{wish.model}@{wish.version}", wish.artifact.sha256):
        return None
    if seen.state == "ready":
        message = f"the slot serves {seen.served} with digest {seen.sha256}, not {wish.version} with {wish.artifact.sha256}"
        return {"reason": WRONG, "message": message}
    return {"reason": seen.reason, "message": seen.message or f"the slot is {seen.state}"}


def _without(state: DeploymentState, target: DeploymentRequested, why: Mapping[str, str]) -> Decision:
    """Give the target up, or say that nothing serves if nothing else does: then it may still become ready."""
    if state.active is not None:
        return _given_up(target, state.active, why)
    return decision_on(DeploymentDegraded(**_about(target), **why), target.deployment)


def _given_up(wish: DeploymentRequested, to: DeploymentRequested, why: Mapping[str, Any]) -> Decision:
    told = DeploymentRolledBack(**_about(wish), to_generation=to.generation, to_version=to.version, **why)
    return decision_on(told, wish.deployment)


def _ready(wish: DeploymentRequested, state: DeploymentState) -> DeploymentReady:
    before = state.active if wish is state.target else None
    return DeploymentReady(**_about(wish), sha256=wish.artifact.sha256, previous=before and before.version)


def _about(wish: DeploymentRequested) -> dict[str, Any]:
    return {"deployment": wish.deployment, "model": wish.model, "generation": wish.generation, "version": wish.version}


def _asks(wish: DeploymentRequested) -> tuple[object, ...]:
    return wish.version, wish.artifact.sha256, wish.alias if wish.follow else None, wish.driver, wish.rollout


def _next(state: DeploymentState) -> int:
    return 1 if state.wish is None else state.wish.generation + 1


def _open(state: DeploymentState) -> DeploymentRequested:
    if state.wish is None or not state.open:
        raise DeploymentRefused("name", None, "the deployment is retired", "deploy a version under its name again")
    return state.wish
