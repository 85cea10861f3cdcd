"""Settings of the HTTP server: who may call, time-outs and limits; read from `NEUROWEAVER_HTTP_*`."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ANY = "*"
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|[0-9a-f:.]+")
_ORIGIN = re.compile(r"https?://[a-z0-9_.\-\[\]:]+")


def _names(given: object) -> object:
    return tuple(name.strip().lower() for name in given.split(",") if name.strip()) if isinstance(given, str) else given


def _hosts(given: tuple[str, ...]) -> tuple[str, ...]:
    for host in given:
        if host != ANY and not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is not the name of a host, such as models.example.org; separate several by commas")
    return given


def _origins(given: tuple[str, ...]) -> tuple[str, ...]:
    for origin in given:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin!r} is not an origin, such as https://ops.example.org; separate several by commas")
    return given


class HttpSettings(BaseSettings):
    """The limits of one process' HTTP server."""

    model_config = SettingsConfigDict(env_prefix="NEUROWEAVER_", extra="ignore", frozen=True)

    http_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names), AfterValidator(_hosts)] = Field(
        default=(),
        description="Names by which callers reach this process, in addition to loopback names and its own address; * for "
        "any.",
    )
    http_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names), AfterValidator(_origins)] = Field(
        default=(), description="Origins of other web pages that may send changes, such as https://ops.example.org."
    )
    http_connections: int = Field(
        default=2000, ge=16, description="The most connections; fewer if the process may not open so many files."
    )
    http_streams: int = Field(
        default=1500,
        ge=1,
        description="The most connections that are event streams; never more than three quarters of all.",
    )
    http_header_seconds: float = Field(default=10.0, gt=0, description="A request's headers must arrive within this time.")
    http_body_seconds: float = Field(default=30.0, gt=0, description="A request's body must arrive within this time.")
    http_idle_seconds: int = Field(
        default=15, ge=1, description="A connection without a request is closed after this time."
    )
    http_unread_seconds: float = Field(
        default=60.0, gt=0, description="A connection is closed if the caller reads nothing of its answer for this time."
    )
