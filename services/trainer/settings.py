"""Defines the trainer's settings."""

from services.chassis.settings import ServiceSettings


class TrainerSettings(ServiceSettings):
    """The settings of the trainer, which are those of every executor."""
