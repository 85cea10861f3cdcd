"""Names the per-user folder for what can be fetched again: broker jars, the demo's base model."""

from pathlib import Path

import platformdirs
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class CacheSettings(BaseSettings):
    """Location of the cache. Any part of it may be removed at any time; it is fetched again when needed."""

    model_config = SettingsConfigDict(env_prefix="NEUROWEAVER_", extra="ignore", frozen=True)

    cache: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("neuroweaver"),
        description="Folder for downloads that several checkouts share; default: the user's cache folder.",
    )
