"""Defines how a service writes its operational tables while it folds events, apart from its pure domain."""

from collections.abc import Sequence
from typing import Protocol

from schemas.envelope import Event
from services.chassis.kernel.aggregate import States
from services.chassis.postgres.transactions import Session

Notification = tuple[str, str]
"""Channel and payload of a NOTIFY."""


class Effects(Protocol):
    """Writes operational tables in the transaction of the batch or command; a replay never calls it."""

    async def __call__(self, connection: Session, events: Sequence[Event], states: States) -> Sequence[Notification]:
        """Returns the notifications to send when the transaction commits. `events`: all events folded in this transaction and those
        that touch no aggregate, in order."""
