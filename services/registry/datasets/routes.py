"""Routes to find data sets, and the versions that were made from them; they only read."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import AfterValidator

from schemas.datasets import PREFIX_AT_LEAST
from schemas.reasons import first_of
from services.chassis.serving.paging import PageAsked
from services.chassis.serving.problem import Problem, problems
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.web.parameters import no_folder
from services.chassis.serving.web.query import parse_query, query_parameters
from services.chassis.serving.web.response_cache import ResponseCache, page_answer, size_of
from services.registry.datasets.queries import DatasetQueries, DatasetsAsked, StoredDataset
from services.registry.datasets.views import DatasetPage, DatasetView, stored_dataset
from services.registry.views import VersionPage

DatasetId = Annotated[
    str,
    Path(
        pattern=rf"^[A-Za-z0-9._-]{{1,128}}(@[0-9a-f]{{{PREFIX_AT_LEAST},64}})?$",
        description=f"`name` (the version that was registered last), or `name@digest` with at least {PREFIX_AT_LEAST} digits.",
    ),
    AfterValidator(no_folder),
]
_NAMED = 5


def datasets_router(runtime: Runtime) -> APIRouter:
    """All routes under `/datasets`."""
    api = APIRouter(prefix="/datasets", tags=["datasets"])
    datasets, answers = DatasetQueries(runtime.reads), ResponseCache()
    newest, newest_made = DatasetsAsked(), PageAsked()

    async def dataset(dataset_id: str) -> StoredDataset:
        name, _, digest = dataset_id.partition("@")
        found = await datasets.called(name, digest)
        if len(found) == 1:
            return found[0]
        known = first_of(await datasets.known(name, _NAMED), _NAMED)
        if found:
            raise Problem(404, "Ambiguous", f"several versions of data set {name!r} begin so; write more digits: {known}")
        if known:
            raise Problem(404, "Not found", f"data set {name!r} has no version {digest!r}; it has {known}")
        raise Problem(404, "Not found", f"no data set {name!r} is registered; GET /api/v1/datasets lists those that are")

    @api.get(
        "",
        summary="List data sets, the newest first",
        response_model=DatasetPage,
        openapi_extra=query_parameters(DatasetsAsked),
        responses=problems(422),
    )
    async def listed(request: Request) -> Response:
        """An item is one version of a data set: the rows that a job stored under its name."""
        return page_answer(*await datasets.page(parse_query(request, newest)))

    @api.get("/{dataset_id}", summary="Show a data set", response_model=DatasetView, responses=problems(404, 422))
    async def shown(dataset_id: DatasetId) -> Response:
        """Finds it by `name`, which means the version that was registered last, or by `name@digest`."""
        found = await dataset(dataset_id)
        return await answers.of(stored_dataset, found, size_of(found.registered))

    @api.get(
        "/{dataset_id}/versions",
        summary="List the versions of models that were made from a data set, the newest first",
        response_model=VersionPage,
        openapi_extra=query_parameters(PageAsked),
        responses=problems(404, 422),
    )
    async def made_from(dataset_id: DatasetId, request: Request) -> Response:
        """`name` alone means all versions of the data set. The same rows under another name count, too."""
        found = (await dataset(dataset_id)).made
        sha256 = found.sha256 if "@" in dataset_id else None
        return page_answer(*await datasets.made_from(found.dataset, sha256, parse_query(request, newest_made)))

    return api
