"""The one configuration object of the trainer."""

from services.chassis.settings import ServiceSettings


class TrainerSettings(ServiceSettings):
    """The trainer needs to know nothing besides what every executor does."""
