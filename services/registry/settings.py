"""Defines the registry's settings."""

from services.chassis.settings import ServiceSettings


class RegistrySettings(ServiceSettings):
    """The settings of the registry, which are those of every service."""
