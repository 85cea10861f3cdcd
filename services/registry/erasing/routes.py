"""The route that erases rows of data sets."""

from fastapi import APIRouter

from services.chassis.serving.problem import problems
from services.chassis.serving.runtime import Runtime
from services.registry.erasing.commands import EraseCommands
from services.registry.erasing.views import EraseAsked, Erasure


def erasing_router(runtime: Runtime) -> APIRouter:
    """Return the route `/erasures`."""
    api = APIRouter(prefix="/erasures", tags=["datasets"])
    commands = EraseCommands(runtime)

    @api.post("", summary="Erase rows from what later jobs read", responses=problems(404, 422))
    async def erased(asked: EraseAsked) -> Erasure:
        """Announces it as RowsErased, once for each data set that has one of the rows; RowsRemoved follows when their bytes are gone.

        A repeated erasure is another one, which finds nothing left. Versions that learnt from the rows keep what they learnt.
        """
        return await commands.erase(asked)

    return api
