"""Serves services over HTTP until SIGTERM or Ctrl-C, then drains them within their grace."""

import asyncio
import importlib
import signal
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import uvicorn

from services.chassis.kafka.settings import overrides
from services.chassis.process.gc_tuning import spare_the_collector
from services.chassis.process.logging import configure
from services.chassis.process.redaction import hide
from services.chassis.serving.http import application
from services.chassis.serving.service import Service
from services.chassis.serving.web.server import server_config
from services.chassis.serving.web.settings import HttpSettings
from services.chassis.settings import ServiceSettings
from services.cli.listening import listen
from services.cli.settings import CliSettings
from services.cli.stack import servers

_HTTP_GRACE_SECONDS = 3
"""Open requests are ended after this time, event streams at once; then the services drain."""


def settings_of(service: str, **overrides: object) -> ServiceSettings:
    """Return the settings of one service, from the environment except for the overrides."""
    module = importlib.import_module(f"services.{service}.settings")
    settings: ServiceSettings = getattr(module, f"{service.capitalize()}Settings")(**overrides)
    return settings


def build(service: str, settings: ServiceSettings) -> Service:
    """Build one service without doing any I/O."""
    hide(settings.secrets)
    built: Service = importlib.import_module(f"services.{service}.app").build(settings)
    return built


@contextmanager
def composed(services: Iterable[str]) -> Iterator[list[Service]]:
    """Yield the services, not running, on the servers that the settings name, the running stack's, or servers started for
    this command."""
    settings = CliSettings()
    with servers(settings) as (cluster, url):
        shared = {**overrides(cluster), "database_url": url, "home": settings.home}
        yield [build(name, settings_of(name, **shared)) for name in services]


class _Server(uvicorn.Server):
    """A uvicorn server that returns after a signal, instead of raising the signal again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


async def serve(services: Sequence[Service], bound: socket.socket, settings: HttpSettings) -> None:
    """Serve until SIGTERM or SIGINT; returns when all services have drained. A second Ctrl-C does not wait for requests."""
    spare_the_collector()
    config = server_config(application(services, settings), settings, graceful_seconds=_HTTP_GRACE_SECONDS)
    await _Server(config).serve(sockets=[bound])


def run(service: str) -> None:
    """Run one service in this process, with settings from the environment and logs on standard error."""
    settings, door = settings_of(service), HttpSettings()
    configure(settings.log_level)
    with listen(settings.http_host, settings.http_port) as bound:
        asyncio.run(serve([build(service, settings)], bound, door))
