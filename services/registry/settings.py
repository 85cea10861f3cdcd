"""Defines the registry's settings."""

from pydantic import Field

from services.chassis.settings import ServiceSettings
from services.registry.deploying.settings import ServingSettings


class RegistrySettings(ServiceSettings):
    """The settings of the registry besides those of every service."""

    serving: ServingSettings = Field(
        default_factory=ServingSettings, description="What serves versions, read from NEUROWEAVER_SERVING_*."
    )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that no output may contain."""
        return (*super().secrets, *self.serving.secrets)
