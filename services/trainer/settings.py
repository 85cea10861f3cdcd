"""Defines the trainer's settings."""

from importlib.util import find_spec
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from services.chassis.process.redaction import secrets_in
from services.chassis.settings import ServiceSettings


class TrainerSettings(ServiceSettings):
    """The settings of the trainer besides those of every executor."""

    trainer_launcher: Literal["local", "torchrun", "ray"] = Field(
        default="local",
        description="How steps run: local, each in one process on one device of this machine; torchrun, those of kind train split "
        "over processes of this machine, each on a GPU of its own or on a share of the cores; ray, each on a node of a Ray cluster, "
        "those of kind train over as many processes there.",
    )
    trainer_processes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="The number of processes over which the launchers torchrun and ray split a training.",
    )
    trainer_warm_seconds: float = Field(
        default=60.0,
        ge=0,
        description="For the launcher local on Linux: the process that has imported what steps need, and forks each step's process, ends "
        "when no step has run for this time; 0: there is none, and each step imports everything.",
    )
    trainer_feedback_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/]+/?$",
        description="Base address of the feedback service, whose judges may reward the answers of a training, for example "
        "http://feedback:8001; null: no judge rewards. `neuroweaver up` sets its own.",
    )
    trainer_strategy: Literal["ddp", "fsdp"] = Field(
        default="ddp",
        description="How those processes share a training: ddp, each holds the whole model; fsdp, each holds a part of every weight, for "
        "models that do not fit on one device.",
    )
    trainer_ray_address: str | None = Field(
        default=None,
        description="For the launcher ray: the address of the cluster, host:port of its head where this machine is one of its nodes; "
        "auto: the cluster that runs on this machine.",
    )
    trainer_ray_cpus: int = Field(
        default=1, ge=1, description="For the launcher ray: the CPUs that each step reserves on a node."
    )
    trainer_ray_gpus: int = Field(
        default=0, ge=0, description="For the launcher ray: the GPUs that each step reserves on a node."
    )

    mlflow_tracking_uri: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Where trainings, evaluations and compressions are recorded as MLflow runs: the URI of an MLflow server or of a "
        "store that its client can write; null: nowhere. It needs the extra mlflow.",
    )
    mlflow_experiment: str = Field(
        default="neuroweaver", min_length=1, max_length=500, description="The MLflow experiment of these runs."
    )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that no output may contain."""
        return (*super().secrets, *secrets_in(self.mlflow_tracking_uri or ""))

    @model_validator(mode="after")
    def _mlflow_is_installed(self) -> Self:
        if self.mlflow_tracking_uri is not None and find_spec("mlflow") is None:
            raise ValueError(
                "NEUROWEAVER_MLFLOW_TRACKING_URI is set, and MLflow's client is not installed: pip install 'neuroweaver[mlflow]'"
            )
        return self

    @model_validator(mode="after")
    def _launcher_can_start(self) -> Self:
        launcher, processes = self.trainer_launcher, self.trainer_processes
        if (launcher == "torchrun" and processes == 1) or (launcher == "local" and processes > 1):
            raise ValueError(
                f"NEUROWEAVER_TRAINER_LAUNCHER is {launcher} and NEUROWEAVER_TRAINER_PROCESSES is {processes}: "
                "set the launcher to torchrun for 2 processes or more, to local for one"
            )
        if self.trainer_strategy == "fsdp" and processes == 1:
            raise ValueError(
                "NEUROWEAVER_TRAINER_STRATEGY is fsdp and NEUROWEAVER_TRAINER_PROCESSES is 1: "
                "set the number of processes that share the weights, with the launcher torchrun or ray, or the strategy to ddp"
            )
        if launcher == "ray" and self.trainer_ray_address is None:
            raise ValueError(
                "NEUROWEAVER_TRAINER_LAUNCHER is ray: set NEUROWEAVER_TRAINER_RAY_ADDRESS to the cluster's address"
            )
        if launcher == "ray" and find_spec("ray") is None:
            raise ValueError("NEUROWEAVER_TRAINER_LAUNCHER is ray, which is not installed: pip install 'neuroweaver[ray]'")
        return self
