"""The registry's domain: it executes `register` and `resolve` steps and owns models, whose events it numbers by model.

There is no separate projection: `evolve` is the projection.
"""

from typing import Any

from schemas.base import EventData
from schemas.envelope import Event
from schemas.models import (
    AliasMoved,
    AliasPolicySet,
    AliasRefused,
    AliasRemoved,
    GatesChecked,
    ModelPromoted,
    ModelRegistered,
    ModelRolledBack,
    PromotionDeclined,
    PromotionRequested,
    VersionDescribed,
)
from services.chassis.executor.attempts import ExecutorDomain
from services.chassis.kernel.aggregate import Ref, State
from services.chassis.kernel.records import Logged
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
)
"""Types of the events about models, which the registry numbers."""


class RegistryDomain(ExecutorDomain):
    """Executes `register` and `resolve` steps and owns models."""

    def __init__(self) -> None:
        super().__init__("registry")
        own = (Models(), Registrations(), AliasMoves(), GateChecks(), PromotionRequests())
        self.aggregates = {**self.aggregates, **{aggregate.name: aggregate for aggregate in own}}
        self.handles |= {event.type_name() for event in OWN}

    def touches(self, event: Event) -> tuple[Ref, ...]:
        """Return a model, and the version, move, check or requests that the event is about; only the registry's own events count."""
        if not isinstance(event.data, OWN):
            return super().touches(event)
        if event.source != self.source:
            return ()
        match event.data:
            case ModelRegistered(model=model, lineage=lineage):
                return (model_ref(model), registration_ref(lineage.job_id, lineage.step))
            case VersionDescribed() as told:
                return (model_ref(told.model), registration_ref(told.job_id, told.step))
            case AliasMoved() | AliasRemoved() as moved:
                return (model_ref(moved.model), move_ref(moved.move or event.id), *requests_of(moved))
            case GatesChecked(model=model, check=check):
                return (model_ref(model), check_ref(check))
        return (model_ref(event.data.model), *requests_of(event.data))

    def owner(self, event: Event) -> Ref:
        """Return the model, which numbers its events."""
        return model_ref(event.data.model) if isinstance(event.data, OWN) else super().owner(event)

    def evolve(self, ref: Ref, state: Any, event: Event, logged: Logged | None) -> State:
        """Return the row after `event`."""
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
            case ModelState(), AliasRefused() | GatesChecked() | VersionDescribed():
                changed = {}
            case _:
                return super().evolve(ref, state, event, logged)
        updated: State = state.model_copy(update={**changed, **_opened(state, event)})
        return updated


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
    if state.opened_by:
        return {}
    return {"correlation_id": event.correlation_id, "opened_by": event.id, "traceparent": event.traceparent}
