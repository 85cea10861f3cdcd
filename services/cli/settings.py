"""What the command line needs to know besides what the services and the stack do."""

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from services.chassis.process.logging import Level
from services.devstack.settings import DevStackSettings


class CliSettings(DevStackSettings):
    """Read from `NEUROWEAVER_*`."""

    http: str | None = Field(
        default=None,
        description="Base address of running services, such as http://127.0.0.1:8001; if set, none is started.",
    )
    http_host: str = Field(default="127.0.0.1", description="Address that `up` and `serve` bind to.")
    http_port: int = Field(default=8001, ge=0, le=65535, description="Port of `up` and `serve`; 0 takes a free one.")
    evidence_key: Path | None = Field(
        default=None, description="Private Ed25519 key (PEM) that signs bundles of evidence; null: name one with --key."
    )
    log_level: Level = Field(default="INFO", description="The lowest level that is logged.")

    @field_validator("http")
    @classmethod
    def _is_an_address(cls, given: str | None) -> str | None:
        if not given:
            return None
        try:
            parts = urlsplit(given)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good:
            raise ValueError("give the base address of running services, such as http://127.0.0.1:8001")
        return given
