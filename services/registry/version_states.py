"""Changes the state of a version: the command behind PUT /models/{model_id}/state, under the locks of model and version."""

from collections.abc import Iterator
from dataclasses import dataclass

from schemas.models import Lineage
from schemas.versions import DELETED, OUT_OF_USE, version_reference
from services.chassis.kernel.aggregate import Ref
from services.chassis.kernel.transaction.commands import Command
from services.chassis.serving.problem import Problem
from services.chassis.serving.runtime import Runtime
from services.registry.domain.state import ModelState, RegistrationState, model_ref, registration_ref
from services.registry.domain.version_states import WITHOUT_NEED, StateRefused, change_state
from services.registry.queries import ModelQueries
from services.registry.views import StateAsked

_USERS_AT_MOST = 20
"""The most versions, jobs, steps and deployments that a refusal names."""


@dataclass(frozen=True, slots=True)
class StateChanges:
    """Changes the states of one registry's versions."""

    runtime: Runtime
    models: ModelQueries

    async def put(self, version_id: str, lineage: Lineage, asked: StateAsked) -> None:
        """Change the state of the version that a job's step registered. Raises a 409 Problem for what is still used, or what cannot be
        restored."""
        owner, ref = model_ref(version_id.partition("@")[0]), registration_ref(lineage.job_id, lineage.step)
        parents = await self._parents(lineage)
        async with self.runtime.transact({owner, ref, *parents.values()}) as command:
            model, row = command.unit.states[owner], command.unit.states[ref]
            assert isinstance(model, ModelState)
            assert isinstance(row, RegistrationState)
            users = await self._users(version_id, asked.state)
            gone = [version for version, parent in parents.items() if _state(command, parent) == DELETED]
            try:
                decision = change_state(row, model, asked.state, by=asked.by, reason=asked.reason, users=users, gone=gone)
            except StateRefused as refused:
                raise Problem.of(409, refused.why, refused.reasons) from refused
            if decision is not None:
                command.unit.apply(decision)

    async def _users(self, version_id: str, state: str) -> list[str]:
        if state not in OUT_OF_USE:
            return []
        return await self.models.used_by(version_id, WITHOUT_NEED[state], _USERS_AT_MOST)

    async def _parents(self, lineage: Lineage) -> dict[str, Ref]:
        """Return the rows of the versions from which a version continues, which are locked so that none is deleted meanwhile."""
        found = {named: await self.models.registration(*named.split("@")) for named in _continues_from(lineage)}
        return {named: ref for named, ref in found.items() if ref is not None}


def _continues_from(lineage: Lineage) -> Iterator[str]:
    """Return the ids of the registered versions from which a version continues, as far as they are of this registry."""
    for reference in (lineage.started_from, lineage.base_model):
        if reference is not None and version_reference(reference):
            yield reference


def _state(command: Command, ref: Ref) -> str:
    row = command.unit.states[ref]
    assert isinstance(row, RegistrationState)
    return row.state
