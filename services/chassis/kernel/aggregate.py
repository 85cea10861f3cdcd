"""What a service's pure domain looks like to the chassis, so that every decision and fold is free of I/O.

Design section 3, rules 1 to 3: an aggregate has one deciding service, which numbers its own events; `evolve` folds the
log into states and is all that a replay runs; `decide` is level-triggered: it looks only at states and the time, yields
one decision and is asked again until it has none.
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
    """Names one aggregate; the order of refs is the order of locks."""

    aggregate: str
    """Name of the aggregate's type and of its table."""
    key: str


class State(Frozen):
    """Base of aggregate states. Every field has a default: the state of an absent aggregate is `State()`.

    The three fields tie decisions without a triggering event (timers, workers) to the story: `evolve` sets them from
    the event that opened the aggregate.
    """

    correlation_id: str | None = Field(default=None, description="Job id.")
    opened_by: str | None = Field(default=None, description="Id of the event that opened the aggregate.")
    traceparent: str | None = Field(default=None, description="W3C trace context of that event.")

    @classmethod
    def stored(cls, text: str) -> Self:
        """The state in a row, which an earlier release may have written: fields that are no more are passed over."""
        return cls.model_validate_json(text, extra="ignore")


class Decision(NamedTuple):
    """One own event to be: the chassis adds id, time, number, causation and trace, applies it and puts it in the outbox."""

    owner: Ref
    """The aggregate whose sequence numbers it."""
    subject: str
    """CloudEvents subject; with the source it is the scope of the number."""
    data: EventData


States = Mapping[Ref, State]


@dataclass(frozen=True)
class AggregateType:
    """How the states of one kind of aggregate are kept: a table named `name` with the columns of `tables.aggregate_table`.

    `due` gives the time at which `decide` has to be asked again without an event, `columns` the extra query columns; both
    are pure functions of the state.
    """

    name: str
    state: type[State]
    columns: Mapping[str, str] = field(default_factory=dict)
    """Extra query column to its PostgreSQL type, for example {"status": "text"}."""

    def due(self, state: Any) -> datetime | None:
        """When `decide` must be asked again without an event; None for never."""
        return None

    def values(self, state: Any) -> Mapping[str, Any]:
        """Values of the extra query columns."""
        return {}


class Domain(Protocol):
    """The pure heart of a service."""

    @property
    def source(self) -> str:
        """CloudEvents source of own events, `neuroweaver/<service>`."""

    @property
    def aggregates(self) -> Mapping[str, AggregateType]:
        """Aggregate types by name."""

    @property
    def handles(self) -> frozenset[str]:
        """Names of the event types that `touches` may answer for, or that the service keeps in operational tables."""

    def touches(self, event: Event) -> tuple[Ref, ...]:
        """The aggregates on whose rows `event` is folded; empty for events that do not concern this service."""

    def owner(self, event: Event) -> Ref:
        """For an own numbered event: the aggregate whose sequence numbers it (one of `touches`)."""

    def evolve(self, ref: Ref, state: Any, event: Event, logged: Logged | None) -> State:
        """The state after `event`; `logged` is where it lies, None for an own event that is not in the log yet.

        Columns commute (rule 2), and an event that is folded again, from another partition or after a long time, changes
        nothing (rule 8). `updated_at` is kept by the chassis.
        """

    def decide(self, ref: Ref, states: States, now: datetime) -> Decision | None:
        """What follows from the state of `ref` now; asked again after each decision until None. Never run in a replay."""


def is_own(domain: Domain, event: Event) -> bool:
    """Whether the service numbered this event itself."""
    return event.sequence is not None and event.source == domain.source
