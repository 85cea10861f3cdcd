"""The one configuration object of the feedback service."""

from services.chassis.settings import ServiceSettings


class FeedbackSettings(ServiceSettings):
    """The feedback service needs to know nothing besides what every executor does."""
