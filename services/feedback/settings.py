"""Defines the feedback service's settings."""

from pydantic import Field

from services.chassis.settings import ServiceSettings


class FeedbackSettings(ServiceSettings):
    """The settings of the feedback service besides those of every executor."""

    judge_processes: int = Field(
        default=2,
        ge=1,
        le=64,
        description="The most judges that are ready for other services at the same time, each in a process of its own; they do not "
        "count among the steps that share the machine.",
    )
    judge_idle_seconds: float = Field(
        default=600.0, gt=0, description="The process of a judge that nobody has asked for this time is ended."
    )
