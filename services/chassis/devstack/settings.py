"""Why: what the development stack may be told: where it keeps things, and which real servers take its place."""

from pathlib import Path

from pydantic import Field

from services.chassis.cache import CacheSettings


class DevStackSettings(CacheSettings):
    """Read from `NEUROWEAVER_*`. An address given for Kafka or PostgreSQL means: use that server, start none."""

    home: Path = Field(default=Path("var/stack"), description="Folder for the stack's data, logs and state file.")
    kafka_bootstrap: str | None = Field(default=None, description="host:port list of a running Kafka cluster.")
    database_url: str | None = Field(default=None, description="URL of a running PostgreSQL server.")
    java: Path | None = Field(
        default=None, description="A Java 17 or later to run Kafka on: `java` itself or a JAVA_HOME; null: the bundled one."
    )
    kafka_heap_mb: int = Field(default=256, ge=128, description="Largest heap of the Kafka process, MiB.")
