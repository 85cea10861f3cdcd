"""Routes to find models, and the commands that move an alias. The commands decide here, under locks."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import AfterValidator

from schemas.ids import new_id
from schemas.reasons import Reason
from services.chassis.kernel.aggregate import Decision
from services.chassis.serving.problem import Problem, problems
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.web.parameters import NameInPath, no_folder
from services.chassis.serving.web.query import parse_query, query_parameters
from services.chassis.serving.web.response_cache import ResponseCache, page_answer, size_of
from services.registry.domain.aliases import Change, ChangeRefused, promote, remove, roll_back
from services.registry.domain.state import ModelState, model_ref, move_ref
from services.registry.queries import MODEL_ID, ModelQueries, ModelRow, MovesAsked, StoredVersion, VersionsAsked
from services.registry.views import (
    AliasesView,
    AliasTarget,
    MovePage,
    RemovalAsked,
    RollbackTarget,
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
IfMatch = Annotated[
    str | None,
    Header(description="ETag of GET .../aliases; the change is refused if an alias of the model has changed since."),
]

_NAMED = 20
"""The most aliases that a refusal names."""


def router(runtime: Runtime) -> APIRouter:
    """All routes under `/models`."""
    api = APIRouter(prefix="/models", tags=["models"])
    models, answers = ModelQueries(runtime.reads), ResponseCache()
    newest, newest_moves = VersionsAsked(), MovesAsked()

    async def model(name: str) -> ModelRow:
        row = await models.model(name)
        if row is None:
            raise _no_model(name)
        return row

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

    @api.get("/{name}/aliases", summary="Show a model's aliases and their last moves", responses=problems(404, 422))
    async def aliases(name: NameInPath, response: Response) -> AliasesView:
        """The ETag of the answer is the value for If-Match of what changes an alias."""
        return await aliases_of(name, response)

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

    @api.put("/{name}/aliases/{alias}", summary="Move an alias to a version", responses=problems(404, 412, 422))
    async def move(
        name: NameInPath, alias: NameInPath, target: AliasTarget, response: Response, if_match: IfMatch = None
    ) -> AliasesView:
        """Moves the alias at once and announces it as ModelPromoted.

        If the alias names the version already, nothing changes and nothing is announced.
        """
        known = (await model(name)).state
        if not await models.has(name, target.version):
            raise _unknown_version(name, target.version, known)

        def decide(state: ModelState) -> Decision | None:
            if state.aliases.get(alias) == target.version:
                return None
            return promote(name, alias, target.version, state, change)

        change = Change(new_id(), target.by, target.reason)
        await changed(name, change, if_match, decide)
        return await aliases_of(name, response)

    @api.post(
        "/{name}/aliases/{alias}/rollback",
        summary="Let an alias go back to a version that it named before",
        responses=problems(404, 412, 422),
    )
    async def rollback(
        name: NameInPath, alias: NameInPath, target: RollbackTarget, response: Response, if_match: IfMatch = None
    ) -> AliasesView:
        """Moves the alias at once, announces it as ModelRolledBack, and forgets the version that it named as a good one."""
        await model(name)
        change = Change(new_id(), target.by, target.reason)
        await changed(name, change, if_match, lambda state: roll_back(name, alias, target.version, state, change))
        return await aliases_of(name, response)

    @api.delete("/{name}/aliases/{alias}", summary="Remove an alias", responses=problems(404, 412, 422))
    async def removed(
        name: NameInPath,
        alias: NameInPath,
        asked: Annotated[RemovalAsked, Query()],
        response: Response,
        if_match: IfMatch = None,
    ) -> AliasesView:
        """Removes the alias at once and announces it as AliasRemoved; its version stays."""
        await model(name)
        change = Change(new_id(), asked.by, asked.reason)
        await changed(name, change, if_match, lambda state: remove(name, alias, state, change))
        return await aliases_of(name, response)

    async def aliases_of(name: str, response: Response) -> AliasesView:
        row = await models.with_moves(name)
        if row is None:
            raise _no_model(name)
        response.headers["ETag"] = _etag(row.state)
        return AliasesView.of(row)

    async def changed(
        name: str, change: Change, if_match: str | None, decide: Callable[[ModelState], Decision | None]
    ) -> None:
        """Decide about the aliases of a model under its lock."""
        ref = model_ref(name)
        async with runtime.transact([ref, move_ref(change.id)]) as command:
            state = command.unit.states[ref]
            assert isinstance(state, ModelState)
            if if_match is not None and if_match != _etag(state):
                detail = (
                    f"the aliases of model {name!r} are at {_etag(state)}, not at {if_match}; read them again, then "
                    "send the change again if it is still wanted"
                )
                raise Problem(412, "The aliases have changed", detail)
            try:
                decision = decide(state)
            except ChangeRefused as refused:
                raise Problem.of(422, "The alias cannot change", [refused.reason]) from refused
            if decision is not None:
                command.unit.apply(decision)

    return api


def _no_model(name: str) -> Problem:
    return Problem(404, "Not found", f"no model {name!r} is registered; GET /api/v1/models lists those that are")


def _unknown_version(name: str, version: str, state: ModelState) -> Problem:
    reason = Reason(
        field="version",
        value=version,
        message=f"model {name!r} has no such version",
        remedy=f"use a version that it has, such as {', '.join(state.newest)}",
    )
    return Problem.of(422, "Unknown version", [reason])


def _etag(state: ModelState) -> str:
    return f'"{state.aliases_at}"'
