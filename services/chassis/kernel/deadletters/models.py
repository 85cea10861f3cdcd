"""Defines dead letters: their states, a stored one with its record, and what operators see of one.

A dead letter is *unreadable* (it is no valid event), *failed* (its handling kept failing), *parked* (it is a later record of an
aggregate that a failed one blocks) or *discarded* (by an operator).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import Field

from schemas.base import Frozen
from services.chassis.kernel.records import RecordId

LetterState = Literal["unreadable", "failed", "parked", "discarded"]
STATES: tuple[LetterState, ...] = ("unreadable", "failed", "parked", "discarded")


class DeadLetterSummary(Frozen):
    """A record that a service has not applied although its position is past it, without the record's bytes."""

    topic: str
    partition: int
    offset: int
    state: LetterState = Field(description="unreadable, failed, parked or discarded.")
    key: str | None = Field(description="The record's key as text; of a long one the beginning.")
    value_bytes: int | None = Field(description="Length of the record's value in bytes; null: it has none.")
    event_type: str | None = Field(description="Type of the record's event; null if it could not be read.")
    event_id: str | None
    job_id: str | None = Field(description="The job that it belongs to, if known.")
    error: str = Field(description="Why it was not applied.")
    attempts: int = Field(description="How often the service tried to handle it.")
    blocked_by: int | None = Field(description="Offset, in the same partition, of the record that a parked one waits for.")
    reason: str | None = Field(description="Why it was discarded.")
    discarded_by: str | None
    appended_at: datetime = Field(description="Time of the record in the log.")
    recorded_at: datetime = Field(description="When it became a dead letter.")

    @property
    def record_id(self) -> RecordId:
        """The id of the record."""
        return self.topic, self.partition, self.offset


class DeadLetter(DeadLetterSummary):
    """A dead letter with its bytes and stack trace."""

    stack: str | None = Field(description="Stack trace of the failure.")
    value: str | None = Field(description="The record's value as text.")
    headers: tuple[tuple[str, str], ...] = Field(description="The record's headers as text.")


@dataclass(frozen=True, slots=True)
class BlockedBy:
    """What a failed or parked record blocks and waits for."""

    offset: int
    state: LetterState
    names: frozenset[str]
    key: bytes | None
    blocked_by: int | None


@dataclass(slots=True)
class Letter:
    """A stored dead letter: the record, and the names that it blocks."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    state: LetterState
    names: frozenset[str]
    event_type: str | None
    event_id: str | None
    correlation_id: str | None
    error: str
    attempts: int
    appended_at: datetime


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a record is not applied."""

    error: str
    stack: str | None = None
    attempts: int = 1
