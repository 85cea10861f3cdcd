"""Defines the interface between the chassis and a service's pure domain, which decides and folds without I/O.

Rules 1 to 3 of docs/architecture.md: one service decides about an aggregate and numbers its own events; `evolve` folds the
log into states and is all that a replay runs; `decide` is level-triggered: it looks only at states and the time, returns
one decision and is called again until it returns None.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol, Self

from pydantic import Field

from schemas.base import EventData, Frozen
from schemas.envelope import Event
from services.chassis.kernel.records import Logged


class Ref(NamedTuple):
    """Identifies one aggregate; rows are locked in the order of their refs."""

    aggregate: str
    """Name of the aggregate type and of its table."""
    key: str


class State(Frozen):
    """Base of aggregate states. Every field has a default: the state of an absent aggregate is `State()`.

    The three fields give correlation, causation and trace to decisions that no event triggers (timers, workers): `evolve` sets
    them from the event that opened the aggregate.
    """

    correlation_id: str | None = Field(default=None, description="Job id.")
    opened_by: str | None = Field(default=None, description="Id of the event that opened the aggregate.")
    traceparent: str | None = Field(default=None, description="W3C trace context of that event.")

    @classmethod
    def stored(cls, text: str) -> Self:
        """Return the state stored in a row. An earlier release may have written it: unknown fields are ignored."""
        return cls.model_validate_json(text, extra="ignore")


def opening(event: Event) -> dict[str, str | None]:
    """Return the fields of a state that say which event opened its aggregate."""
    return {"correlation_id": event.correlation_id, "opened_by": event.id, "traceparent": event.traceparent}


class Decision(NamedTuple):
    """An own event to emit: the chassis adds id, time, sequence number, causation and trace, folds it and writes it to the outbox."""

    owner: Ref
    """The aggregate that gives it the next sequence number."""
    subject: str
    """CloudEvents subject; sequence numbers are unique per source and subject."""
    data: EventData


States = Mapping[Ref, State]


@dataclass(frozen=True)
class AggregateType:
    """How the states of one aggregate type are stored: in a table named `name` with the columns of `tables.aggregate_table`.

    `due` gives the time at which `decide` has to be called again without an event, `values` the extra query columns; both
    are pure functions of the state.
    """

    name: str
    state: type[State]
    columns: Mapping[str, str] = field(default_factory=dict)
    """Extra query column to its PostgreSQL type, for example {"status": "text"}."""

    def due(self, state: Any) -> datetime | None:
        """Return when `decide` must be called again without an event; None for never."""
        return None

    def values(self, state: Any) -> Mapping[str, Any]:
        """Return the values of the extra query columns."""
        return {}


class Domain(Protocol):
    """The pure domain of a service."""

    @property
    def source(self) -> str:
        """CloudEvents source of own events, `neuroweaver/<service>`."""

    @property
    def aggregates(self) -> Mapping[str, AggregateType]:
        """Aggregate types by name."""

    @property
    def handles(self) -> frozenset[str]:
        """Names of the event types that `touches` may return aggregates for, or that the service keeps in operational tables."""

    def touches(self, event: Event) -> tuple[Ref, ...]:
        """Return the aggregates into whose rows `event` is folded; empty for events that do not concern this service."""

    def owner(self, event: Event) -> Ref:
        """For an own numbered event: the aggregate whose sequence it belongs to (one of `touches`)."""

    def evolve(self, ref: Ref, state: Any, event: Event, logged: Logged | None) -> State:
        """Return the state after `event`; `logged` says where its record is, None for an own event that is not in the log
        yet.

        Fields commute (rule 2), and an event that is folded again, from another partition or after a long time, changes
        nothing (rule 8). The chassis maintains `updated_at`.
        """

    def decide(self, ref: Ref, states: States, now: datetime) -> Decision | None:
        """Return the next decision about `ref`; called again after each decision until it returns None.

        A replay never calls it.
        """


def is_own(domain: Domain, event: Event) -> bool:
    """Return whether the service numbered this event itself."""
    return event.sequence is not None and event.source == domain.source
