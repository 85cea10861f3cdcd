"""Defines the registry's aggregates: a model with its versions in order and its aliases, and one row for each version.

Own events on the models topic are numbered by the model. ModelRegistered also creates a `registration`, the row of that one
version: lists read it, and a repeated request of the same step of the same job finds its version there. Each row is written
by own events only, so columns commute (rule 2). There is no separate projection: `evolve` is the projection.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from schemas.base import Frozen
from schemas.envelope import Event
from schemas.jobs import StepRequested, StepResult
from schemas.models import Lineage, ModelPromoted, ModelRegistered
from schemas.reasons import Reason, shown
from schemas.results import ARTIFACT_SHA256, MODEL_NAME, MODEL_VERSION
from services.chassis.executor.attempts import ExecutorDomain
from services.chassis.kernel.aggregate import AggregateType, Decision, Ref, State, States
from services.chassis.kernel.records import Logged
from services.registry.domain.lineage import purpose_of
from services.registry.domain.versioning import FIRST, Version, next_version

MODEL = "model"
REGISTRATION = "registration"


class AliasMove(Frozen):
    """A move of an alias to a version."""

    alias: str
    version: str
    previous: str | None = Field(description="The version that it named before; null if it was new.")
    at: datetime


class ModelState(State):
    """A model; the state stays small, however many versions it has."""

    versions: tuple[str, ...] = Field(default=(), description="Versions in the order of their registration.")
    latest: Lineage | None = Field(default=None, description="Where the last version comes from.")
    aliases: dict[str, str] = Field(default_factory=dict, description="Version by alias.")
    moves: tuple[AliasMove, ...] = Field(default=(), description="How aliases moved, oldest first.")

    @property
    def highest(self) -> Version | None:
        """The highest version; None if the model has none."""
        return max(map(Version.parse, self.versions), default=None)


class RegistrationState(State):
    """One version."""

    registered: ModelRegistered | None = None
    registered_at: datetime | None = None


class Models(AggregateType):
    """How models are stored for lists: the model's row has the aliases by version, since the versions' rows do not."""

    def __init__(self) -> None:
        super().__init__(MODEL, ModelState, {"named": "jsonb"})

    def values(self, state: ModelState) -> Mapping[str, Any]:
        """Aliases by the version that they name, in alphabetical order: a pure function of the state."""
        named: dict[str, list[str]] = {}
        for alias, version in sorted(state.aliases.items()):
            named.setdefault(version, []).append(alias)
        return {"named": json.dumps(named)}


class Registrations(AggregateType):
    """How versions are stored for lists."""

    def __init__(self) -> None:
        columns = {
            "model": "text", "version": "text", "job_id": "text", "requester": "text", "base_model": "text",
            "dataset_sha256": "text", "purpose": "text", "registered_at": "timestamptz",
        }  # fmt: skip
        super().__init__(REGISTRATION, RegistrationState, columns)

    def values(self, state: RegistrationState) -> Mapping[str, Any]:
        """Return the values of the query columns: a pure function of the state."""
        made = state.registered
        return {
            "model": made and made.model,
            "version": made and made.version,
            "job_id": made and made.lineage.job_id,
            "requester": made and made.lineage.requester,
            "base_model": made and made.lineage.base_model,
            "dataset_sha256": made and made.lineage.dataset_sha256,
            "purpose": made and made.purpose,
            "registered_at": state.registered_at,
        }


def model_ref(name: str) -> Ref:
    """Return the reference to a model."""
    return Ref(MODEL, name)


def registration_ref(job_id: str, step: str) -> Ref:
    """Return the reference to the version that a job's step registers; a job id has no slash, so the key is unambiguous."""
    return Ref(REGISTRATION, f"{job_id}/{step}")


class RegistryDomain(ExecutorDomain):
    """Executes `register` steps and owns models."""

    def __init__(self) -> None:
        super().__init__("registry")
        self.aggregates = {
            **self.aggregates,
            MODEL: Models(),
            REGISTRATION: Registrations(),
        }
        self.handles |= {ModelRegistered.type_name(), ModelPromoted.type_name()}

    def touches(self, event: Event) -> tuple[Ref, ...]:
        """Return a model and the version registered; only the registry's own events count."""
        match event.data:
            case ModelRegistered() | ModelPromoted() if event.source != self.source:
                return ()
            case ModelRegistered(model=model, lineage=lineage):
                return (model_ref(model), registration_ref(lineage.job_id, lineage.step))
            case ModelPromoted(model=model):
                return (model_ref(model),)
        return super().touches(event)

    def owner(self, event: Event) -> Ref:
        """Return the model, which numbers its events."""
        if isinstance(event.data, ModelRegistered | ModelPromoted):
            return model_ref(event.data.model)
        return super().owner(event)

    def evolve(self, ref: Ref, state: Any, event: Event, logged: Logged | None) -> State:
        """Return the row after `event`."""
        match state, event.data:
            case RegistrationState(), ModelRegistered() as made:
                return state.model_copy(update={"registered": made, "registered_at": event.time, **_opened(state, event)})
            case ModelState(), ModelRegistered() as made:
                versions = (*state.versions, made.version)
                return state.model_copy(update={"versions": versions, "latest": made.lineage, **_opened(state, event)})
            case ModelState(), ModelPromoted() as moved:
                move = AliasMove(alias=moved.alias, version=moved.version, previous=moved.previous, at=event.time)
                aliases = {**state.aliases, moved.alias: moved.version}
                return state.model_copy(update={"aliases": aliases, "moves": (*state.moves, move)})
        return super().evolve(ref, state, event, logged)


def _opened(state: State, event: Event) -> dict[str, str | None]:
    if state.opened_by:
        return {}
    return {"correlation_id": event.correlation_id, "opened_by": event.id, "traceparent": event.traceparent}


class OtherPurpose(Exception):
    """A version would be for something else than the versions that its model has."""

    def __init__(self, model: str, has: str, wanted: str) -> None:
        message = f"the versions of {model} are for {has}, and this one is for {wanted}"
        self.reason = Reason(
            field="register_as", value=shown(model), message=message, remedy="register it as another model"
        )
        super().__init__(str(self.reason))


def register(
    request: StepRequested, model: str, alias: str | None, wanted: ModelRegistered, states: States
) -> tuple[StepResult, list[Decision]]:
    """Decide a `register` step under the locks of its model and registration.

    `wanted` is the registration without its number. A step that registered before gets its existing version. Raises
    OtherPurpose if the versions of the model are for something else: its aliases must not move to a judge, nor a judge's to it.
    """
    known, owner = states[registration_ref(request.job_id, request.step)], states[model_ref(model)]
    assert isinstance(known, RegistrationState)
    assert isinstance(owner, ModelState)
    decisions = []
    made = known.registered
    if made is None:
        if owner.latest and purpose_of(owner.latest) != wanted.purpose:
            raise OtherPurpose(model, purpose_of(owner.latest), wanted.purpose)
        highest = owner.highest
        number = next_version(highest, owner.latest, wanted.lineage) if highest and owner.latest else FIRST
        made = wanted.model_copy(update={"version": str(number)})
        decisions.append(Decision(model_ref(model), model, made))
        if alias is not None:
            decisions.append(promote(model, alias, made.version, owner))
    facts = {MODEL_NAME: made.model, MODEL_VERSION: made.version, ARTIFACT_SHA256: made.artifact.sha256}
    return StepResult(metrics=made.metrics, facts=facts), decisions


def promote(model: str, alias: str, version: str, state: ModelState) -> Decision:
    """Move `alias` to `version`, which must be one of the model's, or about to be."""
    moved = ModelPromoted(model=model, alias=alias, version=version, previous=state.aliases.get(alias))
    return Decision(model_ref(model), model, moved)
