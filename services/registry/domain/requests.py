"""Defines the requests of promotions that wait for the approval of a second person, each a row of its own."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, get_args

from pydantic import Field

from schemas.base import Frozen
from schemas.envelope import Event
from schemas.models import (
    AliasPolicySet,
    AliasRemoved,
    ModelPromoted,
    ModelRolledBack,
    PromotionDeclined,
    PromotionRequested,
)
from services.chassis.kernel.aggregate import AggregateType, Ref, State

PROMOTION_REQUEST = "promotion_request"
WAITING, APPROVED, DECLINED, SUPERSEDED = "waiting", "approved", "declined", "superseded"

Ending = ModelPromoted | ModelRolledBack | AliasRemoved | AliasPolicySet | PromotionRequested | PromotionDeclined
ENDINGS = get_args(Ending)
"""The events after which a request may wait no more."""


class Waiting(Frozen):
    """The request of an alias that waits for approval; its row has the rest."""

    id: str
    version: str = Field(description="The version that the alias is to name.")
    by: str = Field(description="Who asks.")
    at: datetime


class Asked(Frozen):
    """What somebody asks for."""

    id: str = Field(description="Id of the request.")
    alias: str
    version: str = Field(description="The version that the alias is to name.")
    previous: str | None = Field(description="The version that the alias named then; null for none.")
    at: datetime
    by: str = Field(description="Who asks.")
    reason: str = Field(description="Why; may be empty.")
    verdict: str | None = Field(description="What the gates said then; null if none was asked.")
    accepts_inconclusive: bool = Field(description="Whether who asks accepts inconclusive evidence.")
    accepts_deprecated: bool = Field(default=False, description="Whether who asks accepts that the version is deprecated.")


class Outcome(Frozen):
    """What became of a request."""

    status: str = Field(
        default=WAITING,
        description="waiting, approved, declined, or superseded: the alias moved otherwise, a newer request came, or the rules "
        "changed.",
    )
    decided_at: datetime | None = None
    decided_by: str | None = Field(
        default=None, description="Who approved or declined it, or made the change that superseded it."
    )
    decided_because: str = Field(default="", description="Why; may be empty.")


class PromotionRequestState(State):
    """One request."""

    model: str | None = None
    asked: Asked | None = None
    outcome: Outcome = Outcome()


class PromotionRequests(AggregateType):
    """How requests are stored for lists."""

    def __init__(self) -> None:
        columns = {"model": "text", "alias": "text", "version": "text", "status": "text", "requested_at": "timestamptz"}
        super().__init__(PROMOTION_REQUEST, PromotionRequestState, columns)

    def values(self, state: PromotionRequestState) -> Mapping[str, Any]:
        """Return the values of the query columns: a pure function of the state."""
        asked = state.asked
        return {
            "model": state.model,
            "alias": asked and asked.alias,
            "version": asked and asked.version,
            "status": state.outcome.status,
            "requested_at": asked and asked.at,
        }


def request_ref(request: str) -> Ref:
    """Return the reference to a request by its id."""
    return Ref(PROMOTION_REQUEST, request)


def requests_of(data: object) -> tuple[Ref, ...]:
    """Return the requests that an event is about."""
    match data:
        case PromotionRequested(request=request, supersedes=other) | ModelPromoted(request=request, supersedes=other):
            found: tuple[str | None, ...] = (request, other)
        case PromotionDeclined(request=request):
            found = (request,)
        case ModelRolledBack(supersedes=other) | AliasRemoved(supersedes=other) | AliasPolicySet(supersedes=other):
            found = (other,)
        case _:
            found = ()
    return tuple(request_ref(one) for one in found if one is not None)


def followed(request: str, data: Ending, event: Event) -> dict[str, Any]:
    """Return the fields of a request that an event about it sets."""
    if isinstance(data, PromotionRequested) and data.request == request:
        asked = Asked(
            id=request, alias=data.alias, version=data.version, previous=data.previous, at=event.time, by=data.by,
            reason=data.reason, verdict=data.verdict, accepts_inconclusive=data.accepts_inconclusive, accepts_deprecated=data.accepts_deprecated,
        )  # fmt: skip
        return {"model": data.model, "asked": asked}
    status, by, because = SUPERSEDED, data.by, data.reason
    if isinstance(data, PromotionDeclined):
        status = DECLINED
    elif isinstance(data, ModelPromoted) and data.request == request:
        status, by, because = APPROVED, data.approved_by or data.by, data.approval_reason
    outcome = Outcome(status=status, decided_at=event.time, decided_by=by, decided_because=because)
    return {"model": data.model, "outcome": outcome}
