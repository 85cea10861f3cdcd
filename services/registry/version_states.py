"""Changes the state of a version: the command behind PUT /models/{model_id}/state, under the locks of model and version."""

from schemas.models import Lineage
from services.chassis.serving.problem import Problem
from services.chassis.serving.runtime import Runtime
from services.registry.domain.state import ModelState, RegistrationState, model_ref, registration_ref
from services.registry.domain.version_states import StillUsed, change_state
from services.registry.queries import ModelQueries
from services.registry.views import StateAsked

_USERS_AT_MOST = 20
"""The most versions, steps and deployments that a refusal names."""


async def change_version_state(
    runtime: Runtime, models: ModelQueries, version_id: str, lineage: Lineage, asked: StateAsked
) -> None:
    """Change the state of the version that a job's step registered. Raises a 409 Problem if it is still used."""
    name = version_id.partition("@")[0]
    owner, ref = model_ref(name), registration_ref(lineage.job_id, lineage.step)
    async with runtime.transact([owner, ref]) as command:
        model, row = command.unit.states[owner], command.unit.states[ref]
        assert isinstance(model, ModelState)
        assert isinstance(row, RegistrationState)
        users = await models.used_by(version_id, _USERS_AT_MOST)
        try:
            decision = change_state(row, model, asked.state, by=asked.by, reason=asked.reason, users=users)
        except StillUsed as used:
            raise Problem.of(409, "The version is still used", used.reasons) from used
        if decision is not None:
            command.unit.apply(decision)
