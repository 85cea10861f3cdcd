"""Changes the aliases of models: each change is one transaction under the lock of its model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

from schemas.ids import new_id
from schemas.models import ModelRegistered
from schemas.reasons import Reason
from services.chassis.kernel.aggregate import Ref, States
from services.chassis.kernel.transaction.commands import Command
from services.chassis.serving.problem import Problem
from services.chassis.serving.runtime import Runtime
from services.registry.domain.aliases import Change, ChangeRefused
from services.registry.domain.promoting import Decided, Wish, rows_needed
from services.registry.domain.requests import request_ref
from services.registry.domain.state import ModelState, RegistrationState, model_ref, move_ref
from services.registry.queries import ModelQueries, ModelRow


@dataclass
class Changing:
    """A change in the making; the model is locked."""

    name: str
    alias: str
    change: Change
    command: Command
    models: ModelQueries
    refused: tuple[Reason, ...] = field(default=())
    waits: bool = False
    """Whether the alias stays until a second person approves."""

    @property
    def model(self) -> ModelState:
        """The model."""
        state = self.states[model_ref(self.name)]
        assert isinstance(state, ModelState)
        return state

    @property
    def states(self) -> States:
        """The states that are locked."""
        return self.command.unit.states

    @property
    def now(self) -> datetime:
        """The time of the change."""
        return self.command.unit.now

    async def wish(self, version: str, *, accepts_inconclusive: bool = False, accepts_deprecated: bool = False) -> Wish:
        """Lock what a decision about `version` needs. Raises a 422 Problem for a version that the model does not have."""
        ref = await self.models.registration(self.name, version)
        if ref is None:
            raise unknown_version(self.name, version, self.model)
        await self.command.lock((ref, move_ref(self.change.id), *rows_needed(self.alias, self.change.id, self.model)))
        return Wish(self.alias, self._registered(ref), self.change, accepts_inconclusive, accepts_deprecated)

    def decide(self, decided: Decided) -> None:
        """Apply what was decided; why the alias does not move is told after the transaction, which keeps the evidence."""
        for decision in decided.decisions:
            self.command.unit.apply(decision)
        self.refused = decided.refused
        self.waits = decided.waits

    def _registered(self, ref: Ref) -> ModelRegistered:
        state = self.states[ref]
        assert isinstance(state, RegistrationState)
        assert state.registered is not None
        return state.registered


@dataclass(frozen=True, slots=True)
class AliasChanges:
    """Opens changes of the aliases of one registry."""

    runtime: Runtime
    models: ModelQueries

    @asynccontextmanager
    async def open(
        self, name: str, alias: str, by: str, reason: str, if_match: str | None, *, pinned: bool = False
    ) -> AsyncIterator[Changing]:
        """Lock the model and yield the change. Raises a 404 Problem for an unknown model, 412 where an alias has changed since, 428 where
        a protected alias is changed without saying since when, 422 for what is refused, and 409 for what the gates do not let pass.

        A change that is `pinned` names a request, which waits only while the alias does not move.
        """
        await known_model(self.models, name)  # to lock a row, it is inserted: not for any name that somebody asks for
        async with self.runtime.transact([model_ref(name)]) as command:
            changing = Changing(name, alias, Change(new_id(), by, reason), command, self.models)
            refuse_stale(changing.model, name, alias, if_match, pinned=pinned)
            if waiting := changing.model.waiting(alias):
                await command.lock([request_ref(waiting)])
            try:
                yield changing
            except ChangeRefused as refused:
                raise Problem.of(422, "The alias cannot change", [refused.reason]) from refused
        if changing.refused:
            raise Problem.of(409, "The gates do not let the version pass", changing.refused)


def refuse_stale(state: ModelState, name: str, alias: str, if_match: str | None, *, pinned: bool) -> None:
    if if_match is None and not pinned and state.policy(alias).protected:
        detail = f"alias {alias!r} is protected: GET /api/v1/models/{name}/aliases shows the ETag to send as If-Match"
        raise Problem(428, "The alias is protected", detail)
    if if_match is not None and if_match != etag(state):
        detail = (
            f"the aliases of model {name!r} are at {etag(state)}, not at {if_match}; read them again, then "
            "send the change again if it is still wanted"
        )
        raise Problem(412, "The aliases have changed", detail)


def etag(state: ModelState) -> str:
    """Return the ETag of a model's aliases and policies."""
    return f'"{state.aliases_at}"'


async def known_model(models: ModelQueries, name: str) -> ModelRow:
    """Return a model. Raises a 404 Problem for a name under which no version is registered."""
    row = await models.model(name)
    if row is None:
        raise no_model(name)
    return row


def no_model(name: str) -> Problem:
    """Return the refusal of a name under which no version is registered."""
    return Problem(404, "Not found", f"no model {name!r} is registered; GET /api/v1/models lists those that are")


def unknown_version(name: str, version: str, state: ModelState) -> Problem:
    """Return the refusal of a version that a model does not have."""
    reason = Reason(
        field="version",
        value=version,
        message=f"model {name!r} has no such version",
        remedy=f"use a version that it has, such as {', '.join(state.newest)}",
    )
    return Problem.of(422, "Unknown version", [reason])
