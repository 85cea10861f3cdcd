"""Validates requests in one place, with the same messages over Kafka, HTTP and the command line.

Total over any JSON: each fault of a request becomes a reason, never an exception, because its sender waits for an answer
and the records after it wait for their turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from schemas.bounds import SETTINGS_BYTES, fitting_reasons
from schemas.jobs import JobAccepted
from schemas.reasons import Reason, reasons_of, shown
from schemas.requests import JobRequest
from schemas.steps import PlannedStep, Policy
from schemas.versions import ALIAS_REMEDY, alias_fault, is_semantic
from services.orchestrator.domain.content import REMEMBERED, exact_text
from services.orchestrator.domain.planning import PlanFault, plan
from services.orchestrator.domain.spending import faults_of_budget

DEADLINE_AT_MOST = timedelta(days=3650)
_STEP_BYTES = 4096
"""Upper bound of the bytes of a step that are not in the request: names, inputs and needs of a preset, field names."""


@dataclass(frozen=True)
class Examined:
    """A request that can be accepted."""

    request: JobRequest
    plan: tuple[PlannedStep, ...]


@dataclass(frozen=True)
class RejectedRequest:
    """A request that cannot be accepted."""

    reasons: tuple[Reason, ...]


def examine(
    request: dict[str, Any], faults: Sequence[Reason], now: datetime, policy: Policy | None = None
) -> Examined | RejectedRequest:
    """Determine whether `request` can be accepted at `now`: return its plan, or every reason found.

    `policy`: that of the operator; None where it is not known, and then what depends on it is not examined.
    """
    text = None if faults else exact_text(request)
    known = None if text is None else _acceptable(text)
    if known is not None and not [*_faults_of_deadline(known.request, now), *_faults_of_budget(known.request, policy)]:
        return known
    return _examine(request, faults, now, policy)


@lru_cache(maxsize=REMEMBERED)
def _acceptable(text: bytes) -> Examined | None:
    """The plan of a request that has no fault but perhaps its deadline or its budget; None for any other.

    A request that came over HTTP is examined there and where its job is decided, mostly by one process.
    """
    found = _examine(from_json(text), (), None, None)
    return found if isinstance(found, Examined) else None


def _examine(
    request: dict[str, Any], faults: Sequence[Reason], now: datetime | None, policy: Policy | None
) -> Examined | RejectedRequest:
    """Examine `request`, at any time if `now` is None, and for any operator if `policy` is None."""
    parsed = _parse(request)
    if isinstance(parsed, RejectedRequest) or faults:
        return _refused([*faults, *(parsed.reasons if isinstance(parsed, RejectedRequest) else ())])
    reasons = [*_faults_of_names(parsed), *(_faults_of_deadline(parsed, now) if now else ())]
    reasons += _faults_of_budget(parsed, policy)
    try:
        steps = plan(parsed)
    except PlanFault as fault:
        return _refused([*reasons, *fault.reasons])
    reasons += [*_faults_of_version(parsed, steps), *_faults_of_size(parsed, steps)]
    return _refused(reasons) if reasons else Examined(parsed, steps)


def _parse(request: dict[str, Any]) -> JobRequest | RejectedRequest:
    try:
        return JobRequest.model_validate(request)
    except ValidationError as error:
        return RejectedRequest(reasons_of(error))
    except Exception as error:  # input that breaks a validator is the sender's fault and must not stop the service
        message = f"the request cannot be read: {type(error).__name__}: {error}"
        remedy = "simplify the field that the message names"
        return RejectedRequest((Reason(field="(request)", value=None, message=message, remedy=remedy),))


def _faults_of_names(request: JobRequest) -> list[Reason]:
    """Faults of the names `.` and `..`, which mean folders in URLs and paths, and of an alias that reads like a version."""
    steps = request.pipeline if isinstance(request.pipeline, tuple) else ()
    names = {"job_id": request.job_id, "register_as": request.register_as, "alias": request.alias}
    names |= {f"pipeline.{number}.name": step.name for number, step in enumerate(steps)}
    message = "the name cannot be part of a URL, where it would mean a folder"
    found = [
        Reason(field=field, value=shown(name), message=message, remedy="use a name with a letter or a digit")
        for field, name in names.items()
        if name in (".", "..")
    ]
    if request.alias is not None and (fault := alias_fault(request.alias)):
        found.append(Reason(field="alias", value=shown(request.alias), message=fault, remedy=ALIAS_REMEDY))
    return found


def _faults_of_version(request: JobRequest, steps: Sequence[PlannedStep]) -> list[Reason]:
    """Faults of a number that is named for the new version; whether it is free, only the registry knows."""
    version = request.register_version
    if version is None:
        return []
    if not is_semantic(version):
        message, remedy = "it is no semantic version", "write three numbers, such as 1.2.0, or none"
    elif sum(step.kind == "register" for step in steps) > 1:
        message, remedy = (
            "several steps register a version, and one number is for one",
            "name none: the registry numbers them",
        )
    else:
        return []
    return [Reason(field="register_version", value=shown(version), message=message, remedy=remedy)]


def _faults_of_budget(request: JobRequest, policy: Policy | None) -> list[Reason]:
    return [] if policy is None else list(faults_of_budget(request.budget, policy.prices))


def _faults_of_deadline(request: JobRequest, now: datetime) -> list[Reason]:
    deadline = request.deadline
    if deadline is None or now < deadline <= now + DEADLINE_AT_MOST:
        return []
    message = "the deadline has passed" if deadline <= now else f"the deadline is over {DEADLINE_AT_MOST.days} days ahead"
    remedy = "send a time in the future, or none" if deadline <= now else "send an earlier time, or none"
    return [Reason(field="deadline", value=deadline.isoformat(), message=message, remedy=remedy)]


def _faults_of_size(request: JobRequest, steps: tuple[PlannedStep, ...]) -> list[Reason]:
    if size_at_most(request, steps) <= SETTINGS_BYTES:
        return []
    accepted = JobAccepted(job_id=request.job_id, request=request, plan=steps, policy=Policy())
    size = len(accepted.model_dump_json().encode())
    if size <= SETTINGS_BYTES:
        return []
    return [
        Reason(
            field="(request)",
            value=f"{size} bytes",
            message=f"request and plan together take more than {SETTINGS_BYTES} bytes",
            remedy="use shorter rules and prompts, or fewer steps",
        )
    ]


def size_at_most(request: JobRequest, steps: tuple[PlannedStep, ...]) -> int:
    """Return an upper bound of the bytes of request and plan together: a step repeats a part of the request, and its names
    twice.

    Computing it costs a quarter of serialising them.
    """
    return (1 + len(steps)) * (3 * len(request.model_dump_json().encode()) + _STEP_BYTES)


def _refused(reasons: Sequence[Reason]) -> RejectedRequest:
    return RejectedRequest(fitting_reasons(reasons))
