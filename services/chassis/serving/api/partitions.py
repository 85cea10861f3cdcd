"""Lets operators list the partitions of a service and resume a stopped one over HTTP, as the command line does."""

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.base import Storable, Strict
from services.chassis.kernel.operations.partitions.listing import PartitionView, listed
from services.chassis.kernel.operations.partitions.reading import ConsumedTopics
from services.chassis.kernel.operations.partitions.stepping import (
    CannotStepOver,
    NotStopped,
    SteppedOver,
    step_over,
)
from services.chassis.serving.problem import Problem, problems
from services.chassis.serving.web.parameters import PartitionInPath, TopicInPath


class PartitionList(Strict):
    """All partitions that one service reads."""

    service: str
    partitions: tuple[PartitionView, ...]


class StepOverRequest(Strict):
    """The reason and the person who gives it."""

    reason: Storable = Field(min_length=1, max_length=2000, description="Why the service may continue; recorded for ever.")
    by: Storable = Field(min_length=1, max_length=256, description="Who decides this.")


def partition_router(engine: AsyncEngine, reading: ConsumedTopics) -> APIRouter:
    """Routes under `/partitions/<service>`."""
    service = reading.service
    refusals = problems(409)
    router = APIRouter(prefix=f"/partitions/{service}", tags=["partitions"])

    @router.get("", summary=f"Show how far {service} has read each partition, and which have stopped")
    async def show() -> PartitionList:
        return PartitionList(service=service, partitions=tuple(await listed(engine, reading)))

    @router.post(
        "/{topic}/{partition}/step-over", responses=refusals, summary="Let a stopped partition continue after the cause"
    )
    async def step(topic: TopicInPath, partition: PartitionInPath, request: StepOverRequest) -> SteppedOver:
        """The reason is recorded as an event on `neuroweaver.discards`, which every replay follows."""
        try:
            return await step_over(engine, reading, (topic, partition), request.reason, request.by)
        except NotStopped as error:
            raise Problem(409, "Nothing to step over", str(error)) from error
        except CannotStepOver as error:
            raise Problem(409, "This is not a remedy", str(error)) from error

    return router
