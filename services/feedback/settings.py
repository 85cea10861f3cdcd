"""Defines the feedback service's settings."""

from services.chassis.settings import ServiceSettings


class FeedbackSettings(ServiceSettings):
    """The settings of the feedback service, which are those of every executor."""
