"""Routes to find models, their versions, and how their aliases moved; `alias_api` has the commands."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from pydantic import AfterValidator

from services.chassis.serving.problem import Problem, problems
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.web.parameters import NameInPath, no_folder
from services.chassis.serving.web.query import parse_query, query_parameters
from services.chassis.serving.web.response_cache import ResponseCache, page_answer, size_of
from services.registry.alias_api import alias_routes
from services.registry.approval_api import approval_routes
from services.registry.changing import AliasChanges, known_model
from services.registry.describing import describe_version
from services.registry.policy_views import CheckPage
from services.registry.queries import (
    MODEL_ID,
    ONE_VERSION,
    ChecksAsked,
    ModelQueries,
    ModelRow,
    MovesAsked,
    RequestsAsked,
    StoredVersion,
    VersionsAsked,
)
from services.registry.version_states import StateChanges
from services.registry.views import (
    DescriptionAsked,
    MovePage,
    RequestPage,
    StateAsked,
    VersionPage,
    VersionView,
    stored_version,
)

ModelId = Annotated[
    str,
    Path(
        pattern=MODEL_ID,
        description="`name` (its highest version), `name@version` or `name@alias`.",
    ),
    AfterValidator(no_folder),
]

OneVersion = Annotated[str, Path(pattern=ONE_VERSION, description="`name@version` or `name@alias`.")]

_NAMED = 20
"""The most aliases that a refusal names."""


def router(runtime: Runtime) -> APIRouter:
    """All routes under `/models`."""
    api = APIRouter(prefix="/models", tags=["models"])
    models, answers = ModelQueries(runtime.reads), ResponseCache()
    states = StateChanges(runtime, models)
    newest, newest_moves, newest_checks, newest_requests = VersionsAsked(), MovesAsked(), ChecksAsked(), RequestsAsked()

    async def model(name: str) -> ModelRow:
        return await known_model(models, name)

    async def version(model_id: str) -> StoredVersion:
        name, _, wanted = model_id.partition("@")
        found = await models.version(name, wanted)
        if found is None:
            state = (await model(name)).state
            known = ", ".join((*state.newest, *sorted(state.aliases)[:_NAMED]))
            raise Problem(404, "Not found", f"model {name!r} has no version or alias {wanted!r}; it has {known}")
        return found

    @api.get(
        "",
        summary="List versions, the newest first",
        response_model=VersionPage,
        openapi_extra=query_parameters(VersionsAsked),
        responses=problems(422),
    )
    async def listed(request: Request) -> Response:
        """A version is on one page only, also when versions are added meanwhile.

        An item is a summary; `/models/{model_id}` has everything.
        """
        return page_answer(*await models.page(parse_query(request, newest)))

    @api.get(
        "/{model_id}", summary="Show a version with its lineage", response_model=VersionView, responses=problems(404, 422)
    )
    async def shown(model_id: ModelId) -> Response:
        """Finds it by `name@version` or `name@alias`; `name` alone means the highest version."""
        found = await version(model_id)
        return await answers.of(stored_version, found, size_of(found.registered))

    @api.patch("/{model_id}", summary="Describe a version by a text and by tags", responses=problems(404, 422))
    async def described(model_id: ModelId, asked: DescriptionAsked) -> VersionView:
        """Sets the description and the tags that are given, and announces them as VersionDescribed if they are new."""
        known = stored_version(await version(model_id))
        await describe_version(runtime, known.name, known.lineage, asked)
        return stored_version(await version(known.id))

    @api.put(
        "/{model_id}/state",
        summary="Deprecate, archive or delete a version, or make it live again",
        responses=problems(404, 409, 422),
    )
    async def put_in_state(model_id: OneVersion, asked: StateAsked) -> VersionView:
        """Announces it as VersionStateChanged if it is new. What is still used is neither archived nor deleted: the refusal names each use.

        An archived version keeps its files and can become live again. A deleted one is in no list unless it is asked for; it can become
        live again until the retention policy has removed its files. Its number stays taken.
        """
        known = stored_version(await version(model_id))
        await states.put(known.id, known.lineage, asked)
        return stored_version(await version(known.id))

    @api.get(
        "/{name}/moves",
        summary="List the moves of a model's aliases, the newest first",
        response_model=MovePage,
        openapi_extra=query_parameters(MovesAsked),
        responses=problems(404, 422),
    )
    async def moves(name: NameInPath, request: Request) -> Response:
        """Each says who moved which alias where, when and why."""
        await model(name)
        return page_answer(*await models.moves(name, parse_query(request, newest_moves)))

    @api.get(
        "/{name}/checks",
        summary="List what gates said of a model's versions, the newest first",
        response_model=CheckPage,
        openapi_extra=query_parameters(ChecksAsked),
        responses=problems(404, 422),
    )
    async def checks(name: NameInPath, request: Request) -> Response:
        """Each has the verdict of every gate and what it compared."""
        await model(name)
        return page_answer(*await models.checks(name, parse_query(request, newest_checks)))

    @api.get(
        "/{name}/requests",
        summary="List requests of promotions that need approval, the newest first",
        response_model=RequestPage,
        openapi_extra=query_parameters(RequestsAsked),
        responses=problems(404, 422),
    )
    async def requests(name: NameInPath, request: Request) -> Response:
        """Each says who asked for what and why, and what became of it."""
        await model(name)
        return page_answer(*await models.requests(name, parse_query(request, newest_requests)))

    changes = AliasChanges(runtime, models)
    api.include_router(alias_routes(changes))
    api.include_router(approval_routes(changes))
    return api
