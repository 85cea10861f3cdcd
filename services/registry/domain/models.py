"""The registry's domain: it executes `register` and `resolve` steps and owns models, deployments and data sets, each with events of its own numbers.

There is no separate projection: `evolve` is the projection.
"""

from datetime import datetime
from typing import Any

from schemas.base import EventData
from schemas.datasets import DatasetRegistered, RowsErased, RowsRemoved
from schemas.deployments import (
    DeploymentAdvanced,
    DeploymentChanged,
    DeploymentDegraded,
    DeploymentReady,
    DeploymentRequested,
    DeploymentRetired,
    DeploymentRolledBack,
    DeploymentShadowed,
)
from schemas.envelope import Event
from schemas.jobs import JobRejected, StepCompleted
from schemas.models import (
    AliasMoved,
    AliasPolicySet,
    AliasRefused,
    AliasRemoved,
    ErasedRowsLearnt,
    GatesChecked,
    ModelPromoted,
    ModelRegistered,
    ModelRolledBack,
    PromotionDeclined,
    PromotionRequested,
    VersionDescribed,
    VersionFilesRemoved,
    VersionStateChanged,
)
from services.chassis.executor.attempts import ExecutorDomain
from services.chassis.kernel.aggregate import Decision, Ref, State, States, opening
from services.chassis.kernel.records import Logged
from services.registry.domain.datasets import (
    Datasets,
    DatasetState,
    after_registration,
    after_snapshot,
    dataset_ref,
    registration,
    stored_by,
)
from services.registry.domain.deployments.deciding import overdue
from services.registry.domain.deployments.judged import (
    Judgements,
    JudgementState,
    after_telling,
    judgement_ref,
    told_judgement,
)
from services.registry.domain.deployments.state import Deployments, DeploymentState, deployment_ref
from services.registry.domain.erasing import Erasures, ErasureState, after_data_event, after_mark, erasure_ref
from services.registry.domain.job_ends import FACTS, JobEnds, JobEndState, after_end, end_ref
from services.registry.domain.requests import ENDINGS, PromotionRequests, PromotionRequestState, followed, requests_of
from services.registry.domain.state import (
    AliasMove,
    AliasMoves,
    AliasMoveState,
    GateCheck,
    GateChecks,
    GateCheckState,
    Models,
    ModelState,
    Registrations,
    RegistrationState,
    check_ref,
    model_ref,
    move_ref,
    registration_ref,
)
from services.registry.domain.uses import DataUses, DataUseState, after_use, use_ref

OWN = (
    ModelRegistered,
    ModelPromoted,
    ModelRolledBack,
    AliasRemoved,
    AliasRefused,
    GatesChecked,
    AliasPolicySet,
    VersionDescribed,
    PromotionRequested,
    PromotionDeclined,
    DeploymentRequested,
    DeploymentAdvanced,
    DeploymentReady,
    DeploymentDegraded,
    DeploymentRolledBack,
    DeploymentRetired,
    DeploymentShadowed,
    VersionStateChanged,
    VersionFilesRemoved,
    ErasedRowsLearnt,
)
"""Types of the events about models and deployments, which the registry numbers."""
ABOUT_DATA = (DatasetRegistered, RowsErased, RowsRemoved)
"""Types of those about data sets."""


_OF_A_VERSION = (AliasRefused, GatesChecked, VersionDescribed, VersionStateChanged, VersionFilesRemoved, ErasedRowsLearnt)
"""Types of events that change nothing of the model's own row."""


class RegistryDomain(ExecutorDomain):
    """Executes `register` and `resolve` steps and owns models, deployments and data sets."""

    def __init__(self) -> None:
        super().__init__("registry")
        own = (
            Models(),
            Registrations(),
            AliasMoves(),
            GateChecks(),
            PromotionRequests(),
            Datasets(),
            Deployments(),
            DataUses(),
            JobEnds(),
            Erasures(),
            Judgements(),
        )
        self.aggregates = {**self.aggregates, **{aggregate.name: aggregate for aggregate in own}}
        self.handles |= {event.type_name() for event in (*OWN, *FACTS, JobRejected, *ABOUT_DATA)}

    def touches(self, event: Event) -> tuple[Ref, ...]:
        """Return a model, and the version, move, check or requests that the event is about; or a deployment; or the data set that a step
        stored. Of other events about models, deployments and data sets only the registry's own count."""
        judgement = told_judgement(event.data)
        if isinstance(event.data, StepCompleted):
            judged = (judgement,) if judgement else ()
            return (*super().touches(event), *_about_data(event.data), *judged)
        if ends := tuple(ref for ref in (end_ref(event), judgement) if ref):
            return ends
        if not isinstance(event.data, (*OWN, *ABOUT_DATA)):
            return super().touches(event)
        if event.source != self.source:
            return ()
        match event.data:
            case RowsErased() as erased:
                return (dataset_ref(erased), erasure_ref(erased))
            case DatasetRegistered() | RowsRemoved() as of_data:
                return (dataset_ref(of_data),)
            case ModelRegistered(model=model, lineage=lineage):
                return (model_ref(model), registration_ref(lineage.job_id, lineage.step))
            case VersionDescribed() | VersionStateChanged() | VersionFilesRemoved() | ErasedRowsLearnt() as told:
                return (model_ref(told.model), registration_ref(told.job_id, told.step))
            case AliasMoved() | AliasRemoved() as moved:
                return (model_ref(moved.model), move_ref(moved.move or event.id), *requests_of(moved))
            case GatesChecked(model=model, check=check):
                return (model_ref(model), check_ref(check))
            case DeploymentShadowed() as asked:
                return (deployment_ref(asked.deployment), judgement_ref(asked.judgement))
            case DeploymentChanged(deployment=name):
                return (deployment_ref(name),)
        return (model_ref(event.data.model), *requests_of(event.data))

    def owner(self, event: Event) -> Ref:
        """Return the model, the deployment or the data set, which numbers its events."""
        if isinstance(event.data, ABOUT_DATA):
            return dataset_ref(event.data)
        if isinstance(event.data, DeploymentChanged):
            return deployment_ref(event.data.deployment)
        return model_ref(event.data.model) if isinstance(event.data, OWN) else super().owner(event)

    def evolve(self, ref: Ref, state: Any, event: Event, logged: Logged | None) -> State:
        """Return the row after `event`."""
        if isinstance(state, DatasetState | ErasureState):
            return _data(state, event)
        if isinstance(state, DataUseState):
            return after_use(state, event, event.data) if isinstance(event.data, StepCompleted) else state
        if isinstance(state, JobEndState):
            return after_end(state, event)
        if isinstance(state, JudgementState):
            return after_telling(state, event)
        match state, event.data:
            case RegistrationState(), ModelRegistered() as made:
                changed: dict[str, Any] = {"registered": made, "registered_at": event.time}
            case ModelState(), ModelRegistered() as made:
                changed = dict(state.registered(made))
            case ModelState(), AliasMoved() | AliasRemoved() as moved:
                changed = dict(state.moved(moved, event.sequence or 0, event.time))
            case AliasMoveState(), AliasMoved() | AliasRemoved() as moved:
                changed = {"model": moved.model, "move": _move(moved, event)}
            case RegistrationState(), VersionDescribed() as told:
                changed = {"description": told.description, "tags": told.tags}
            case RegistrationState(), VersionStateChanged() as told:
                changed = dict(state.put(told.state, told.reason, event.time))
            case RegistrationState(), VersionFilesRemoved():
                changed = {"files_removed_at": event.time}
            case RegistrationState(), ErasedRowsLearnt() as marked:
                changed = dict(after_mark(state, marked, event.time))
            case ModelState(), AliasPolicySet() as rules:
                changed = dict(state.ruled(rules, event.sequence or 0))
            case GateCheckState(), GatesChecked() as found:
                changed = {"model": found.model, "check": _check(found, event)}
            case ModelState(), PromotionRequested() as asked:
                changed = dict(state.asked(asked, event.time))
            case ModelState(), PromotionDeclined() as declined:
                changed = dict(state.declined(declined))
            case PromotionRequestState(), _ if isinstance(event.data, ENDINGS):
                changed = followed(ref.key, event.data, event)
            case DeploymentState(), DeploymentChanged() as told_of:
                changed = dict(state.after(told_of, event.time))
            case ModelState(), _ if isinstance(event.data, _OF_A_VERSION):
                changed = {}
            case _:
                return super().evolve(ref, state, event, logged)
        updated: State = state.model_copy(update={**changed, **_opened(state, event)})
        return updated

    def decide(self, ref: Ref, states: States, now: datetime) -> Decision | None:
        """Registers a data set that a step stored, gives up what a deployment waits for too long; of attempts as every executor does."""
        state = states[ref]
        if isinstance(state, DeploymentState):
            return overdue(state, now)
        return registration(state) if isinstance(state, DatasetState) else super().decide(ref, states, now)


def _about_data(completed: StepCompleted) -> tuple[Ref, ...]:
    stored, use = stored_by(completed), use_ref(completed)
    return (*([dataset_ref(stored)] if stored else ()), *([use] if use else ()))


def _data(state: DatasetState | ErasureState, event: Event) -> DatasetState | ErasureState:
    match state, event.data:
        case DatasetState(), DatasetRegistered() as made:
            return after_registration(state, event, made)
        case DatasetState(), StepCompleted() as completed if told := stored_by(completed):
            return after_snapshot(state, event, told)
    return after_data_event(state, event)


_KINDS: dict[type[EventData], str] = {ModelPromoted: "promoted", ModelRolledBack: "rolled_back", AliasRemoved: "removed"}


def _move(moved: AliasMoved | AliasRemoved, event: Event) -> AliasMove:
    return AliasMove(
        alias=moved.alias,
        kind=_KINDS[type(moved)],
        version=None if isinstance(moved, AliasRemoved) else moved.version,
        previous=moved.previous,
        at=event.time,
        by=moved.by,
        reason=moved.reason,
        verdict=None if isinstance(moved, AliasRemoved) else moved.verdict,
        request=moved.request if isinstance(moved, ModelPromoted) else None,
        approved_by=moved.approved_by if isinstance(moved, ModelPromoted) else None,
    )


def _check(found: GatesChecked, event: Event) -> GateCheck:
    return GateCheck(
        id=found.check, alias=found.alias, version=found.version, holder=found.holder, verdict=found.verdict, gates=found.gates,
        at=event.time, by=found.by,
    )  # fmt: skip


def _opened(state: State, event: Event) -> dict[str, str | None]:
    return {} if state.opened_by else opening(event)
