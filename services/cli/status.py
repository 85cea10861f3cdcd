"""Says what runs, where it is reached, and whether it can do its work."""

from datetime import datetime
from pathlib import Path
from typing import Literal

import httpx2
from pydantic import Field

from schemas.base import Frozen
from services.chassis.postgres.urls import without_password
from services.chassis.process.transient import described
from services.cli.exits import Exit
from services.cli.output import hint, out, print_pairs, print_table
from services.cli.program import as_typed
from services.cli.settings import CliSettings
from services.cli.stack import home_of
from services.devstack import state
from services.devstack.state import StackState

_TIMEOUT = 5.0


class ServiceStatus(Frozen):
    """One service behind the HTTP address."""

    name: str
    ready: bool
    missing: dict[str, str] = Field(description="Conditions that do not hold, with the reason.")


class Status(Frozen):
    """The output of `status --json`."""

    status: Literal["ready", "not ready", "not running"]
    home: str | None = Field(default=None, exclude=True)
    """The folder in which the stack was searched, for a message."""
    http: str | None = None
    kafka_bootstrap: str | None = None
    database_url: str | None = Field(
        default=None, description="Without its password, which is in postgres/password in the stack's folder."
    )
    services: tuple[ServiceStatus, ...] = ()
    trouble: str | None = Field(
        default=None, description="Why the state of the services is unknown; null: they answer, or none is running."
    )
    pid: int | None = Field(default=None, description="Process id of the development stack; null: it runs elsewhere.")
    started_at: datetime | None = None
    servers: dict[str, int] = Field(default={}, description="Servers of the development stack with their process ids.")
    logs: Path | None = None

    @property
    def exit(self) -> Exit:
        """The exit code of the command."""
        return {"ready": Exit.OK, "not ready": Exit.FAILED, "not running": Exit.UNREACHABLE}[self.status]


def read_status(settings: CliSettings) -> Status:
    """Read the stack's state file, then ask the services."""
    stack = state.read_state(settings.home)
    http = settings.http or (stack.http if stack else None)
    services, trouble = _ask(http.rstrip("/")) if http else ((), None)
    if services and all(service.ready for service in services):
        word: Literal["ready", "not ready", "not running"] = "ready"
    else:
        word = "not ready" if services or stack else "not running"
    url = settings.database_url or (stack.database_url if stack else None)
    return Status(
        status=word,
        home=home_of(settings),
        http=http,
        kafka_bootstrap=settings.kafka_bootstrap or (stack.kafka_bootstrap if stack else None),
        database_url=without_password(url) if url else None,
        services=services,
        trouble=trouble,
        pid=stack.pid if stack else None,
        started_at=stack.started_at if stack else None,
        servers=stack.servers if stack else {},
        logs=stack.logs if stack else None,
    )


def _ask(http: str) -> tuple[tuple[ServiceStatus, ...], str | None]:
    """Return the services behind an address, or why their state is unknown."""
    try:
        answer = httpx2.get(f"{http}/api/v1/health/detailed", timeout=_TIMEOUT).raise_for_status()
    except httpx2.HTTPError as error:
        return (), f"{http} does not answer as NeuroWeaver does: {described(error)}"
    try:
        services = tuple(
            ServiceStatus(
                name=service["name"],
                ready=service["ready"],
                missing={each["name"]: each["reason"] for each in service["conditions"] if not each["holds"]},
            )
            for service in answer.json()["services"]
        )
    except (ValueError, LookupError, TypeError):
        return (), f"another program answers at {http}; correct NEUROWEAVER_HTTP, or see `neuroweaver doctor`"
    return services, None


def print_status(status: Status) -> None:
    """Print the status as text."""
    out.print(f"NeuroWeaver is {status.status}.", markup=False)
    _print_where(status.http, status.kafka_bootstrap, status.database_url, status.logs)
    if status.trouble:
        hint(status.trouble)
    if status.services:
        rows = [
            (
                service.name,
                "ready"
                if service.ready
                else as_typed("; ".join(f"{name}: {why}" for name, why in service.missing.items())),
            )
            for service in status.services
        ]
        print_table(("service", "condition"), rows)
    if status.status == "not running":
        out.print(f"Searched in {status.home}.", markup=False, highlight=False, soft_wrap=True)
        hint("Start it with `neuroweaver up`; `neuroweaver doctor` checks what could prevent that.")


def print_addresses(stack: StackState) -> None:
    """Print the addresses of a stack that has just started."""
    out.print("NeuroWeaver is ready.")
    _print_where(stack.http, stack.kafka_bootstrap, without_password(stack.database_url), stack.logs)


def _print_where(http: str | None, kafka: str | None, database: str | None, logs: Path | None) -> None:
    docs = f"{http.rstrip('/')}/docs" if http else None
    print_pairs((("HTTP", http), ("routes", docs), ("Kafka", kafka), ("PostgreSQL", database), ("logs", logs)))
