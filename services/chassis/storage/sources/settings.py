"""The operator's settings for what jobs may name; the defaults suit a personal machine."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from services.chassis.storage.sources.allowed import AllowedSources

_PACKAGE = Path(__file__).resolve().parents[3]
"""Files that are shipped with the services, such as the demo's data."""
_ROOT = Path("/")
"""A working folder that supervisors set by default: nobody chose it, so it allows nothing."""
_SYSTEM = (Path("/proc"), Path("/sys"), Path("/dev"), Path("/run"))


def _listed(given: Any) -> Any:
    return tuple(part.strip() for part in given.split(",") if part.strip()) if isinstance(given, str) else given


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
Folders = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_listed)]
"""A list, separated by commas."""


class SourceSettings(BaseSettings):
    """Read from `NEUROWEAVER_SOURCES_*`."""

    model_config = SettingsConfigDict(env_prefix="NEUROWEAVER_SOURCES_", extra="ignore", frozen=True)

    folders: Folders = Field(
        default=(Path(), _PACKAGE), description="Folders of data sets and base models; the user's cache is always added."
    )
    schemes: Names = Field(default=("http", "https", "s3"), description="Schemes of the URLs that jobs may name.")
    hosts: Names = Field(
        default=(), description="host or host:port that may be reached although its address is private, and be sent keys."
    )
    public_hosts: bool = Field(default=True, description="Whether jobs may name any host that has a public address.")
    hub: bool = Field(default=True, description="Whether jobs may name ids of the Hugging Face hub.")
    download_mb: float = Field(default=50_000, gt=0, description="The largest download, in megabytes.")
    download_seconds: float = Field(default=3600, gt=0, description="The longest download, in seconds.")

    def allowed(self, home: Path, cache: Path) -> AllowedSources:
        """The value for the steps: `home` holds passwords and other jobs' artifacts, so only listed folders in it are
        open."""
        named = [(folder, folder.expanduser().resolve()) for folder in (*self.folders, cache)]
        return AllowedSources(
            folders=tuple(real for folder, real in named if folder.is_absolute() or real != _ROOT),
            closed=tuple(folder.resolve() for folder in (*_SYSTEM, home)),
            schemes=tuple(scheme.lower() for scheme in self.schemes),
            hosts=self.hosts,
            public_hosts=self.public_hosts,
            hub=self.hub,
            download_bytes=round(self.download_mb * 10**6),
            download_seconds=self.download_seconds,
        )
