"""Defines the trainer's settings."""

from typing import Literal, Self

from pydantic import Field, model_validator

from services.chassis.settings import ServiceSettings


class TrainerSettings(ServiceSettings):
    """The settings of the trainer besides those of every executor."""

    trainer_launcher: Literal["local", "torchrun"] = Field(
        default="local",
        description="How a step of kind train runs: local, in one process on one device; torchrun, split over processes of "
        "this machine, each on a GPU of its own or on a share of the cores.",
    )
    trainer_processes: int = Field(
        default=1, ge=1, le=64, description="The number of processes that the launcher torchrun splits a training over."
    )

    @model_validator(mode="after")
    def _several_processes_only_with_torchrun(self) -> Self:
        if (self.trainer_launcher == "torchrun") != (self.trainer_processes > 1):
            raise ValueError(
                f"NEUROWEAVER_TRAINER_LAUNCHER is {self.trainer_launcher} and NEUROWEAVER_TRAINER_PROCESSES is "
                f"{self.trainer_processes}: set the launcher to torchrun for 2 processes or more, to local for one"
            )
        return self
