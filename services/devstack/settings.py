"""Defines the development stack's settings: where it stores data, and which real servers replace it."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.settings import Bootstrap, KafkaSettings
from services.chassis.postgres.urls import ServerUrl
from services.chassis.storage.cache import CacheSettings


class DevStackSettings(KafkaSettings, CacheSettings):
    """Read from `NEUROWEAVER_*`. If an address of Kafka or PostgreSQL is set, that server is used and none is started."""

    home: Path = Field(default=Path("var/stack"), description="Folder for the stack's data, logs and state file.")
    kafka_bootstrap: Bootstrap | None = Field(default=None, description="host:port list of a running Kafka cluster.")
    database_url: ServerUrl | None = Field(default=None, description="URL of a running PostgreSQL server.")
    java: Path | None = Field(
        default=None,
        description="Java 17 or later that runs Kafka: the `java` executable or a JAVA_HOME; null: the bundled one.",
    )
    kafka_heap_mb: int = Field(default=256, ge=128, description="Largest heap of the Kafka process, MiB.")

    @model_validator(mode="after")
    def _security_of_a_named_cluster(self) -> Self:
        if self.kafka_bootstrap is None and self.kafka_security_protocol != "PLAINTEXT":
            raise ValueError(
                f"NEUROWEAVER_KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol} needs NEUROWEAVER_KAFKA_BOOTSTRAP: "
                "the development broker on this machine uses PLAINTEXT"
            )
        return self

    @property
    def named_cluster(self) -> Cluster | None:
        """The running cluster that the settings name; None if the development broker is used."""
        return Cluster(self.kafka_bootstrap, self.kafka_security) if self.kafka_bootstrap else None
