"""Configures uvicorn with this package's protocol and a connection limit below the limit of open files."""

import resource

import uvicorn
from fastapi import FastAPI

from services.chassis.process.logging import get_logger
from services.chassis.serving.web.connections import SPARE, Connections
from services.chassis.serving.web.protocol import protocol_of
from services.chassis.serving.web.settings import HttpSettings

_log = get_logger(__name__)
_WANTED_FILES = 65_536
_BACKLOG = 64
"""asyncio accepts this many connections at once, and about three times as many before it handles the first."""
_OTHER_FILES = 320
"""File descriptors reserved for Kafka, PostgreSQL, child processes, files, and accepted connections not yet handled."""
_LEAST = 16
_HEADERS = [
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "frame-ancestors 'none'"),
    ("cross-origin-resource-policy", "same-origin"),
]
_ALWAYS = ("/api/v1/health", "/api/v1/metrics")


def server_config(app: FastAPI, settings: HttpSettings, *, graceful_seconds: int) -> uvicorn.Config:
    """Return the configuration for `uvicorn.Server`. Raises the process' soft limit of open files as far as allowed."""
    return uvicorn.Config(
        app,
        http=protocol_of(settings, places(settings, _files()), _ALWAYS),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=_HEADERS,
        backlog=_BACKLOG,
        timeout_keep_alive=settings.http_idle_seconds,
        timeout_graceful_shutdown=graceful_seconds,
    )


def places(settings: HttpSettings, files: int) -> Connections:
    """Limits of connections and streams for a process that may open `files` files; a quarter of the places is never
    streams."""
    room = max(_LEAST, files - _OTHER_FILES - SPARE)
    limit = min(settings.http_connections, room)
    streams = min(settings.http_streams, limit * 3 // 4)
    if room < settings.http_connections:
        _log.warning(
            "fewer http connections than set: raise the limit of open files",
            connections=limit,
            streams=streams,
            files=files,
        )
    return Connections(limit, streams)


def _files() -> int:
    """Raise the limit of open files as far as allowed, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _WANTED_FILES if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # some systems enforce a lower limit
        return soft
    return wanted
