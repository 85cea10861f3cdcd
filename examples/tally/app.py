"""The tally's composition root: settings in, a service out, no I/O yet."""

from pydantic import Field

from examples.tally.api import router
from examples.tally.domain import TallyDomain
from schemas.topics import JOBS, REQUESTS
from services.chassis.kernel.effects import Effects
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.service import Service, assemble
from services.chassis.settings import ServiceSettings

NAME = "tally"
PREFIX = "tally-"
"""The service refuses jobs whose id has this prefix, and ignores all others."""


class TallySettings(ServiceSettings):
    """The settings of every service, with another port than that of `neuroweaver up`."""

    http_port: int = Field(default=8002, ge=0, le=65535, description="Port of the HTTP server.")


def runtime_of(settings: ServiceSettings, service: str, domain: TallyDomain, effects: Effects | None = None) -> Runtime:
    """Return the runtime, which consumes the topics of the domain's events, decides and publishes."""
    return Runtime(settings, service, domain, topics=(REQUESTS, JOBS), effects=effects)


def build(settings: TallySettings) -> Service:
    """Build the tally service."""
    runtime = runtime_of(settings, NAME, TallyDomain(NAME, PREFIX))
    return assemble(runtime, router=router(runtime))
