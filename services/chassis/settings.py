"""The one explicit configuration object of a service, read from `NEUROWEAVER_*` in its composition root."""

from pathlib import Path

from pydantic import Field

from services.chassis.kafka.cluster import Cluster
from services.chassis.kafka.settings import Bootstrap, KafkaSettings
from services.chassis.postgres.urls import DatabaseUrl, ServerUrl, with_name
from services.chassis.prices import PriceSettings
from services.chassis.process.logging import Level
from services.chassis.process.redaction import secrets_in
from services.chassis.storage.cache import CacheSettings
from services.chassis.storage.retention.policy import RetentionSettings
from services.chassis.storage.sources.settings import SourceSettings


class ServiceSettings(KafkaSettings, CacheSettings):
    """The settings of every service. Everything binds to loopback unless it is set otherwise."""

    kafka_bootstrap: Bootstrap = Field(default="127.0.0.1:9092", description="host:port list of the Kafka cluster.")
    database_url: ServerUrl = Field(
        default="postgresql://postgres@127.0.0.1:5432/postgres",
        description="PostgreSQL server; each service uses its own database neuroweaver_<service> on it.",
    )
    orchestrator_database_url: DatabaseUrl | None = Field(
        default=None, description="URL of the orchestrator's database, instead of the common server."
    )
    trainer_database_url: DatabaseUrl | None = Field(
        default=None, description="URL of the trainer's database, instead of the common server."
    )
    feedback_database_url: DatabaseUrl | None = Field(
        default=None, description="URL of the feedback service's database, instead of the common server."
    )
    registry_database_url: DatabaseUrl | None = Field(
        default=None, description="URL of the registry's database, instead of the common server."
    )
    home: Path = Field(default=Path("var/stack"), description="Folder for checkpoints, logs and local artifacts.")
    artifacts: str | None = Field(default=None, description="fsspec URI of the artifact store; null: <home>/artifacts.")
    http_host: str = Field(default="127.0.0.1", description="Address to which the HTTP server binds.")
    http_port: int = Field(default=8001, ge=0, le=65535, description="Port of the HTTP server.")
    instance: str | None = Field(
        default=None, description="Stable name of this process among its service's; gives static Kafka membership."
    )
    batch_records: int = Field(default=500, ge=1, le=10_000, description="The most records in one transaction.")
    batch_timeout_ms: int = Field(default=5, ge=1, description="Pause after an empty poll, in milliseconds.")
    session_timeout_ms: int = Field(default=10_000, ge=1000, description="Kafka session time-out, in milliseconds.")
    database_seconds: float = Field(
        default=30.0, gt=0, description="A statement fails if PostgreSQL does not answer for this time."
    )
    dead_letter_run: int = Field(default=10, ge=2, description="A partition stops when this many records in a row fail.")
    dead_letter_share: float = Field(
        default=0.2, gt=0, le=1, description="A partition stops when this share of its last hundred records fails."
    )
    drain_seconds: float = Field(default=20.0, gt=0, description="Time for open work to end after SIGTERM.")
    log_level: Level = Field(default="INFO", description="The lowest level that is logged.")
    workers: int = Field(
        default=64, ge=0, le=64, description="The most steps that an executor runs at the same time; 0 runs none."
    )
    slot_cores: int | None = Field(
        default=None, ge=1, description="Cores that the steps of an executor may use in all; null: those of the machine."
    )
    slot_memory_mb: int | None = Field(
        default=None,
        ge=256,
        description="Main memory that the steps of an executor may use in all, in megabytes; null: that of the machine.",
    )
    step_cores: int | None = Field(
        default=None, ge=1, description="Cores that a step of unknown need counts; null: all, so that it runs alone."
    )
    step_memory_mb: int | None = Field(
        default=None,
        ge=1,
        description="Main memory that a step of unknown need counts, in megabytes; null: a quarter of all.",
    )
    hung_seconds: float = Field(
        default=3600.0,
        gt=0,
        description="A step's process that reports no progress for this time is ended after it has written where it stands to "
        "the step's log, and the step is tried again.",
    )
    lease_seconds: float = Field(default=15.0, gt=0, description="A lease that is not renewed for this time is taken over.")
    disk_reserve_mb: int = Field(
        default=256,
        ge=0,
        description="An executor starts no step while the disks that it writes to have less free space, in megabytes.",
    )
    retention: RetentionSettings = Field(
        default_factory=RetentionSettings, description="The retention policy, read from NEUROWEAVER_RETENTION_*."
    )
    sources: SourceSettings = Field(
        default_factory=SourceSettings, description="The sources that jobs may name, read from NEUROWEAVER_SOURCES_*."
    )
    price: PriceSettings = Field(
        default_factory=PriceSettings, description="The prices of machine time and energy, read from NEUROWEAVER_PRICE_*."
    )
    policy_backoff_seconds: float = Field(default=5.0, ge=0, description="Wait before a step's first retry.")
    policy_cancel_grace_seconds: float = Field(
        default=60.0, ge=0, description="The longest wait for running steps to stop after a cancellation."
    )

    def database_url_for(self, service: str) -> str:
        """URL of the service's own database; see `services.chassis.postgres.urls`."""
        own: str | None = getattr(self, f"{service}_database_url", None)
        return own or with_name(self.database_url, f"neuroweaver_{service}")

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that no output may contain."""
        urls = [getattr(self, name) for name in type(self).model_fields if name.endswith("database_url")]
        security = self.kafka_security
        known = [security.password, security.key_password, *(part for url in urls if url for part in secrets_in(url))]
        return tuple(secret for secret in known if secret)

    @property
    def cluster(self) -> Cluster:
        """The address and the security of the Kafka cluster."""
        return Cluster(self.kafka_bootstrap, self.kafka_security)

    @property
    def artifacts_uri(self) -> str:
        """The URI of the artifact store: the one that is set, or a folder under `home`."""
        return self.artifacts or str(self.home.resolve() / "artifacts")
