"""Checks what a driver says it observed, before anybody relies on it: a driver is another program, and may say anything."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self, get_args
from urllib.parse import urlsplit

from schemas.base import in_calendar, storable
from schemas.bounds import cut
from schemas.deployments import DeploymentRequested
from services.registry.deploying.driver import Observed, ServingState
from services.registry.domain.deployments.deciding import NOWHERE, Seen
from services.registry.domain.deployments.state import slot_of

Place = tuple[str, str]
"""Deployment and slot."""
_STATES = frozenset(get_args(ServingState))
_WORD = re.compile(r"[A-Z][A-Za-z0-9]{0,63}")
_NAME_BYTES, _MESSAGE_BYTES, _HEADERS_AT_MOST = 400, 2000, 10
GARBAGE = "DriverFault"
"""The reason of a slot of which the driver said what no driver says."""


@dataclass(frozen=True, slots=True)
class SlotRow:
    """What was observed of a slot."""

    deployment: str
    slot: str
    served: str
    sha256: str
    state: str
    reason: str
    message: str
    address: str | None
    headers: tuple[tuple[str, str], ...]
    since: datetime
    called: str = ""

    @classmethod
    def missing(cls, deployment: str, wish: DeploymentRequested, since: datetime) -> Self:
        """Return the row of a slot that the driver does not know."""
        return cls(deployment, slot_of(wish), *NOWHERE[:5], None, (), since)

    @property
    def place(self) -> Place:
        """Deployment and slot."""
        return self.deployment, self.slot

    def seen(self, unready_seconds: float) -> Seen:
        """Return what decisions look at."""
        return Seen(self.served, self.sha256, self.state, self.reason, self.message, unready_seconds)


class DriverFault(Exception):
    """A driver answered with something that says nothing of any slot: nobody knows then how its slots are."""


def checked(observed: Iterable[object], now: datetime) -> dict[Place, SlotRow]:
    """Return what can be relied on of what a driver said, by place. A slot of which it says nonsense has failed.

    Raises DriverFault for what is about no slot.
    """
    rows = (_checked(one, now) for one in observed)
    return {row.place: row for row in rows}


def _checked(one: object, now: datetime) -> SlotRow:
    if not isinstance(one, Observed):
        raise DriverFault(f"the driver answers with {type(one).__name__}, which is no observation")
    try:
        deployment, slot = _text(one.deployment, _NAME_BYTES), _text(one.slot, _NAME_BYTES)
    except (TypeError, ValueError) as fault:
        raise DriverFault(f"the driver names a slot that cannot be: {fault}") from fault
    try:
        return _said(one, deployment, slot)
    except (AttributeError, TypeError, ValueError, OverflowError) as fault:
        message = cut(f"the driver's answer about the slot cannot be right: {fault}", _MESSAGE_BYTES)
        return SlotRow(deployment, slot, "", "", "failed", GARBAGE, message, None, (), now)


def _said(one: Observed, deployment: str, slot: str) -> SlotRow:
    if one.state not in _STATES or not _WORD.fullmatch(one.reason):
        raise ValueError(f"state {one.state!r} and reason {one.reason!r} are not words of a driver")
    if one.state == "ready":
        _check_address(one.address)
    headers = tuple((_text(name, 200), _text(value, 2000)) for name, value in one.headers[:_HEADERS_AT_MOST])
    return SlotRow(
        deployment, slot, _text(one.served, _NAME_BYTES), _text(one.sha256, _NAME_BYTES), one.state, one.reason,
        _text(one.message, _MESSAGE_BYTES), one.address, headers, in_calendar(one.since.astimezone(UTC)),
        _text(one.called, _NAME_BYTES),
    )  # fmt: skip


def _text(value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return cut(storable(value), limit)


def _check_address(address: object) -> None:
    parts = urlsplit(address) if isinstance(address, str) else None
    if (
        parts is None
        or parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.query
        or parts.path.endswith("/")
    ):
        raise ValueError(f"{address!r} is not an http address to which a path can be added")


def values_of(rows: Sequence[SlotRow]) -> Mapping[str, Any]:
    """Return the values of the statement that stores them."""
    return {
        "deployments": [row.deployment for row in rows],
        "slots": [row.slot for row in rows],
        "served": [row.served for row in rows],
        "digests": [row.sha256 for row in rows],
        "states": [row.state for row in rows],
        "reasons": [row.reason for row in rows],
        "messages": [row.message for row in rows],
        "addresses": [row.address for row in rows],
        "headers": [json.dumps(row.headers) for row in rows],
        "since": [row.since for row in rows],
        "called": [row.called for row in rows],
    }
