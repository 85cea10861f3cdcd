"""The one configuration object of the registry."""

from services.chassis.settings import ServiceSettings


class RegistrySettings(ServiceSettings):
    """What every service needs is all that the registry needs."""
