"""The route that says who saw a row of a data set; it only reads."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from schemas.artifacts import SHA256_PATTERN
from schemas.base import NAME_PATTERN
from services.chassis.executor.folders import cache_of
from services.chassis.serving.problem import problems
from services.chassis.serving.runtime import Runtime
from services.registry.ledger.reading import StoredLedgers
from services.registry.ledger.searching import RowSearch
from services.registry.ledger.views import RowSeen


def ledger_router(runtime: Runtime) -> APIRouter:
    """Return the route `/rows/{digest}`."""
    api = APIRouter(prefix="/rows", tags=["datasets"])
    settings = runtime.settings
    search = RowSearch(runtime.reads, StoredLedgers(settings.artifacts_uri, cache_of(settings.home)))

    @api.get("/{digest}", summary="Say which trainings and versions saw a row", responses=problems(422))
    async def seen(
        digest: Annotated[
            str, Path(pattern=SHA256_PATTERN, description="Digest of the row as it was given (`schemas.row_digest`).")
        ],
        dataset: Annotated[
            str | None, Query(pattern=NAME_PATTERN, description="Only data sets with this name; default: the newest 500.")
        ] = None,
    ) -> RowSeen:
        """A row that is in no data set is not an error: `found` is empty. `complete` is false where something could not be searched."""
        return await search.who_saw(digest, dataset)

    return api
