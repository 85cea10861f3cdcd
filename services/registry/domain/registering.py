"""Decides a `register` step: which version the artifact becomes, and whether the job's alias moves to it."""

from schemas.jobs import StepRequested, StepResult
from schemas.models import ModelRegistered
from schemas.reasons import Reason, shown
from schemas.results import ARTIFACT_SHA256, MODEL_NAME, MODEL_VERSION
from services.chassis.kernel.aggregate import Decision, Ref, States
from services.registry.domain.aliases import Change
from services.registry.domain.lineage import purpose_of
from services.registry.domain.promoting import Wish, promotion_by_job, rows_needed
from services.registry.domain.state import (
    ModelState,
    RegistrationState,
    model_ref,
    move_of_step,
    move_ref,
    registration_ref,
)
from services.registry.domain.versioning import FIRST, Version, next_version, refusal_of


class OtherPurpose(Exception):
    """A version would be for something else than the versions that its model has."""

    def __init__(self, model: str, has: str, wanted: str) -> None:
        message = f"the versions of {model} are for {has}, and this one is for {wanted}"
        self.reason = Reason(
            field="register_as", value=shown(model), message=message, remedy="register it as another model"
        )
        super().__init__(str(self.reason))


class VersionRefused(Exception):
    """A job names a number for its version that it cannot have."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


def rows_of(request: StepRequested, model: str, alias: str | None) -> tuple[Ref, ...]:
    """Return the rows that `register` needs locked first."""
    refs = (model_ref(model), registration_ref(request.job_id, request.step))
    return refs if alias is None else (*refs, move_ref(move_of_step(request.job_id, request.step)))


def further_rows(request: StepRequested, model: str, alias: str | None, states: States) -> tuple[Ref, ...]:
    """Return the rows that `register` needs locked besides, as the model's row says. A step that registered before needs none."""
    known, owner = states[registration_ref(request.job_id, request.step)], states[model_ref(model)]
    assert isinstance(known, RegistrationState)
    assert isinstance(owner, ModelState)
    if alias is None or known.registered is not None:
        return ()
    return rows_needed(alias, move_of_step(request.job_id, request.step), owner)


def register(
    request: StepRequested, model: str, alias: str | None, wanted: ModelRegistered, states: States
) -> tuple[StepResult, list[Decision]]:
    """Decide a `register` step under the locks of `rows_of` and `further_rows`.

    `wanted` is the registration, without a number unless the job names one. A step that registered before gets its existing
    version. Raises VersionRefused if the number is taken or lower than the highest of its line, and OtherPurpose if the versions of the model are for something else: its aliases must not move to a judge, nor a judge's to it.
    """
    known, owner = states[registration_ref(request.job_id, request.step)], states[model_ref(model)]
    assert isinstance(known, RegistrationState)
    assert isinstance(owner, ModelState)
    decisions = []
    made = known.registered
    if made is None:
        if owner.latest and purpose_of(owner.latest) != wanted.purpose:
            raise OtherPurpose(model, purpose_of(owner.latest), wanted.purpose)
        made = wanted.model_copy(update={"version": _number(owner, wanted)})
        decisions.append(Decision(model_ref(model), model, made))
        if alias is not None:
            decisions += _alias_moved(made, alias, states)
    facts = {MODEL_NAME: made.model, MODEL_VERSION: made.version, ARTIFACT_SHA256: made.artifact.sha256}
    return StepResult(metrics=made.metrics, facts=facts), decisions


def _number(owner: ModelState, wanted: ModelRegistered) -> str:
    if wanted.version:
        if reason := refusal_of(wanted.version, owner.lines):
            raise VersionRefused(reason)
        return wanted.version
    if owner.highest is None or owner.latest is None:
        return str(FIRST)
    return str(next_version(Version.parse(owner.highest), owner.latest, wanted.lineage))


def _alias_moved(made: ModelRegistered, alias: str, states: States) -> tuple[Decision, ...]:
    lineage = made.lineage
    change = Change(move_of_step(lineage.job_id, lineage.step), lineage.requester, f"registered by job {lineage.job_id}")
    return promotion_by_job(Wish(alias, made, change), states).decisions
