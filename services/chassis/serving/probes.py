"""Serves the health of a process and its metrics: whether it is live and ready, and why it is not."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from services.chassis.process.health import Health
from services.chassis.process.metrics import REGISTRY


class Summary(BaseModel):
    """Whether this process can work."""

    status: Literal["ready", "not ready"]
    services: dict[str, Literal["ready", "not ready"]] = Field(description="State of each service of this process.")


class ConditionView(BaseModel):
    """One condition of one service."""

    name: str
    holds: bool
    reason: str = Field(description="Why it does not hold, or a remark.")
    since: datetime | None = Field(description="When it last changed between holding and not holding; null: not yet known.")
    changes_last_hour: int = Field(description="How often it changed in the last hour.")


class ServiceView(BaseModel):
    """One service with its conditions."""

    name: str
    live: bool
    ready: bool
    conditions: list[ConditionView]


class Detail(BaseModel):
    """All services of this process with their conditions."""

    status: Literal["ready", "not ready"]
    services: list[ServiceView]


def router(healths: Sequence[Health]) -> APIRouter:
    """Routes for health and metrics of one process; none of them waits for the database or the broker."""
    api = APIRouter(tags=["operations"])

    def word(ready: bool) -> Literal["ready", "not ready"]:
        return "ready" if ready else "not ready"

    def summary() -> Summary:
        services = {health.service: word(health.ready) for health in healths}
        return Summary(status=word("not ready" not in services.values()), services=services)

    def answer(found: Summary, good: bool) -> Response:
        return Response(found.model_dump_json(), 200 if good else 503, media_type="application/json")

    @api.get("/health", summary="Show whether the process is ready", response_model=Summary)
    async def health() -> Response:
        """Always 200: the body says whether the process is ready."""
        return answer(summary(), True)

    @api.get(
        "/health/live",
        summary="Check whether the process is alive",
        response_model=Summary,
        responses={503: {"model": Summary}},
    )
    async def live() -> Response:
        """503 if the process hangs and should be restarted. An unreachable database does not change the answer."""
        return answer(summary(), all(health.live for health in healths))

    @api.get(
        "/health/ready",
        summary="Check whether the process should get traffic",
        response_model=Summary,
        responses={503: {"model": Summary}},
    )
    async def ready() -> Response:
        """503 while a condition does not hold; `/health/detailed` says which and why."""
        found = summary()
        return answer(found, found.status == "ready")

    @api.get("/health/detailed", summary="Show every condition with its reason")
    async def detailed() -> Detail:
        """Conditions are kept up to date by the services; none is computed for this answer."""
        return Detail(status=summary().status, services=[_view(health) for health in healths])

    @api.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def prometheus() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)

    return api


def _view(health: Health) -> ServiceView:
    names = dict.fromkeys((*health.requires, *health.conditions))
    conditions = []
    for name in names:
        known = health.conditions.get(name)
        conditions.append(
            ConditionView(
                name=name,
                holds=bool(known and known.holds),
                reason=known.reason if known else "not yet known",
                since=known.since if known else None,
                changes_last_hour=health.changes(name),
            )
        )
    return ServiceView(name=health.service, live=health.live, ready=health.ready, conditions=conditions)
