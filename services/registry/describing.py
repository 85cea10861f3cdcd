"""Describes a version: the command behind PATCH /models/{model_id}, which decides under the locks of model and version."""

from schemas.models import Lineage
from services.chassis.serving.problem import Problem
from services.chassis.serving.runtime import Runtime
from services.registry.domain.describing import TooManyTags, describe
from services.registry.domain.state import RegistrationState, model_ref, registration_ref
from services.registry.views import DescriptionAsked


async def describe_version(runtime: Runtime, model: str, lineage: Lineage, asked: DescriptionAsked) -> None:
    """Change description and tags of the version of a model that a job's step registered. Raises a 422 Problem for too many tags."""
    ref = registration_ref(lineage.job_id, lineage.step)
    async with runtime.transact([model_ref(model), ref]) as command:
        state = command.unit.states[ref]
        assert isinstance(state, RegistrationState)
        try:
            decision = describe(state, asked.description, asked.tags, asked.by)
        except TooManyTags as fault:
            raise Problem.of(422, "The version cannot be described so", [fault.reason]) from fault
        if decision is not None:
            command.unit.apply(decision)
