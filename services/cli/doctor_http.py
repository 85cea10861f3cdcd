"""Doctor's look at the services over HTTP: whether they answer where they should, and what they could not process."""

from typing import Any

import httpx2

from schemas.steps import SERVICES
from services.chassis.process.transient import described
from services.cli.finding import Finding
from services.cli.settings import CliSettings
from services.devstack.ports import LOOPBACK, is_free

_ANSWER_SECONDS = 8.0
_BASE = "NEUROWEAVER_HTTP must be only the base address, such as http://127.0.0.1:8001"


def http(settings: CliSettings, running: str | None) -> Finding:
    """Check whether the services answer at their address, or its port is free; `running` is the address of a running
    stack."""
    address = settings.http or running
    if address is not None:
        return _asked(address.rstrip("/"))
    port = settings.http_port
    if not port or is_free(port):
        return Finding(check="HTTP", verdict="good", detail=f"port {port or '0 (any)'} is free")
    remedy = "stop the program that listens on it, or set NEUROWEAVER_HTTP_PORT (0 takes a free port)"
    try:
        conditions = _conditions(f"http://{LOOPBACK}:{port}")
    except (httpx2.HTTPError, ValueError):
        detail = f"port {port} is taken by another program"
        return Finding(check="HTTP", verdict="mend", detail=detail, remedy=remedy)
    said = _not_held(conditions)
    detail = f"port {port} is taken by NeuroWeaver services, which are {f'not ready: {said}' if said else 'ready'}"
    remedy = f"to use them, set NEUROWEAVER_HTTP=http://{LOOPBACK}:{port}, or {remedy}"
    return Finding(check="HTTP", verdict="mend" if said else "note", detail=detail, remedy=remedy)


def _asked(address: str) -> Finding:
    """Check whether the services at an address are ready."""
    try:
        said = _not_held(_conditions(address))
    except httpx2.HTTPError as error:
        remedy = f"see `neuroweaver status` and the logs, or correct NEUROWEAVER_HTTP; {_BASE}"
        detail = f"{address} does not answer as NeuroWeaver does: {described(error, 300)}"
        return Finding(check="HTTP", verdict="mend", detail=detail, remedy=remedy)
    except ValueError as error:
        return Finding(check="HTTP", verdict="mend", detail=str(error), remedy=f"correct NEUROWEAVER_HTTP; {_BASE}")
    if said:
        detail = f"{address} answers but is not ready: {said}"
        return Finding(check="HTTP", verdict="mend", detail=detail, remedy="see `neuroweaver status`")
    return Finding(check="HTTP", verdict="good", detail=f"{address} is ready")


def _conditions(address: str) -> list[tuple[str, dict[str, Any]]]:
    """Return all conditions of the services at an address.

    Raises HTTPError, and ValueError for the answer of another program.
    """
    place = f"{address}/api/v1/health/detailed"
    answer = httpx2.get(place, timeout=_ANSWER_SECONDS).raise_for_status()
    try:
        return [(service["name"], one) for service in answer.json()["services"] for one in service["conditions"]]
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{place} answers, but not as NeuroWeaver does") from error


def _not_held(conditions: list[tuple[str, dict[str, Any]]]) -> str:
    return "; ".join(f"{service}: {one['name']}: {one['reason']}" for service, one in conditions if not one["holds"])


def dead_letters(address: str | None) -> Finding:
    """Check whether a service that answers has dead letters, or stopped at one."""
    counts: dict[str, int] = {}
    for service in SERVICES if address else ():
        place = f"{str(address).rstrip('/')}/api/v1/dead-letters/{service}"
        try:
            found = httpx2.get(place, params={"limit": 1}, timeout=_ANSWER_SECONDS).raise_for_status().json()["counts"]
            counts[service] = sum(number for state, number in found.items() if state != "discarded")
        except (httpx2.HTTPError, ValueError, LookupError, TypeError, AttributeError):
            continue  # the check `http` reports a service that does not answer, and another program
    waiting = ", ".join(f"{number} of {service}" for service, number in counts.items() if number)
    if waiting:
        remedy = "see `neuroweaver dlq list`; retry or discard them"
        return Finding(check="dead letters", verdict="mend", detail=waiting, remedy=remedy)
    detail = "none" if counts else "not known: no service answers"
    return Finding(check="dead letters", verdict="good", detail=detail)
