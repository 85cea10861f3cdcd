"""Defines the orchestrator's settings."""

from pydantic import Field

from schemas.steps import Policy
from services.chassis.settings import ServiceSettings


class OrchestratorSettings(ServiceSettings):
    """The settings of the orchestrator besides those of every service."""

    decision_wait_seconds: float = Field(
        default=3.0,
        ge=0,
        description="The longest time, in seconds, that an HTTP request to start or cancel a job waits for the decision.",
    )

    @property
    def policy(self) -> Policy:
        """The policy for jobs accepted from now on."""
        return Policy(
            backoff_seconds=self.policy_backoff_seconds,
            cancel_grace_seconds=self.policy_cancel_grace_seconds,
            prices=self.price.prices,
        )
