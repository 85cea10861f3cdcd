"""Keeps what a driver sees of one slot, from the first moment on."""

from dataclasses import replace
from datetime import UTC, datetime

from services.registry.deploying.driver import Observed, ServingState, Target


def first(target: Target) -> Observed:
    """Return what is seen of a slot that a driver was asked for just now."""
    return Observed(
        deployment=target.deployment, slot=target.slot, served=target.served, sha256=target.artifact.sha256,
        state="starting", reason="Starting", message="", address=None, since=datetime.now(UTC),
    )  # fmt: skip


def seen(
    before: Observed, state: ServingState, reason: str, message: str = "", address: str | None = None, called: str = ""
) -> Observed:
    """Return what is seen of a slot now; the time changes with state or reason."""
    since = before.since if (before.state, before.reason) == (state, reason) else datetime.now(UTC)
    return replace(
        before, state=state, reason=reason, message=message, address=address, since=since, called=called, headers=()
    )
