"""Describes a service's projection for a replay, and wraps its domain so that it only folds."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from schemas.envelope import Event
from services.chassis.kafka.cluster import Cluster
from services.chassis.kernel.aggregate import AggregateType, Decision, Domain, Ref, State, States
from services.chassis.kernel.records import Logged


@dataclass(frozen=True)
class Projection:
    """A service's projection, and the log of which it is a fold."""

    service: str
    domain: Domain
    topics: tuple[str, ...]
    """Names of its topics that are kept for ever; topics with limited retention are not part of a projection."""
    cluster: Cluster
    database_url: str


class Folding:
    """A domain that decides nothing: a replay runs only `evolve`."""

    def __init__(self, domain: Domain) -> None:
        self._domain = domain

    @property
    def source(self) -> str:
        return self._domain.source

    @property
    def aggregates(self) -> Mapping[str, AggregateType]:
        return self._domain.aggregates

    @property
    def handles(self) -> frozenset[str]:
        return self._domain.handles

    def touches(self, event: Event) -> tuple[Ref, ...]:
        return self._domain.touches(event)

    def owner(self, event: Event) -> Ref:
        return self._domain.owner(event)

    def evolve(self, ref: Ref, state: Any, event: Event, logged: Logged | None) -> State:
        return self._domain.evolve(ref, state, event, logged)

    def decide(self, ref: Ref, states: States, now: datetime) -> Decision | None:
        """Decides nothing: the log has every decision."""
        return None
