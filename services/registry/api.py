"""Routes to find models, and the command that moves an alias. The command decides here, under locks."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from pydantic import AfterValidator

from schemas.reasons import Reason
from services.chassis.serving.problem import Problem, problems
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.web.parameters import NameInPath, no_folder
from services.chassis.serving.web.query import parse_query, query_parameters
from services.chassis.serving.web.response_cache import ResponseCache, page_answer, size_of
from services.registry.domain.models import ModelState, model_ref, promote
from services.registry.queries import ModelQueries, ModelRow, StoredVersion, VersionsAsked
from services.registry.views import AliasesView, AliasTarget, VersionPage, VersionView, stored_version

ModelId = Annotated[
    str,
    Path(
        pattern=r"^[A-Za-z0-9._-]{1,128}(@[A-Za-z0-9._-]{1,128})?$",
        description="`name` (its highest version), `name@version` or `name@alias`.",
    ),
    AfterValidator(no_folder),
]


_NAMED = 20
"""The most versions and aliases that a refusal names; the newest are named."""


def router(runtime: Runtime) -> APIRouter:
    """All routes under `/models`."""
    api = APIRouter(prefix="/models", tags=["models"])
    models, answers, newest = ModelQueries(runtime.reads), ResponseCache(), VersionsAsked()

    async def model(name: str) -> ModelRow:
        row = await models.model(name)
        if row is None:
            raise Problem(404, "Not found", f"no model {name!r} is registered; GET /api/v1/models lists those that are")
        return row

    async def version(model_id: str) -> StoredVersion:
        name, _, wanted = model_id.partition("@")
        found = await models.version(name, wanted)
        if found is None:
            state = (await model(name)).state
            known = ", ".join((*state.versions[-_NAMED:], *sorted(state.aliases)[:_NAMED]))
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

    @api.get("/{name}/aliases", summary="Show a model's aliases and their history", responses=problems(404, 422))
    async def aliases(name: NameInPath, response: Response) -> AliasesView:
        """The ETag of the answer is the value for If-Match of PUT."""
        row = await model(name)
        response.headers["ETag"] = _etag(row.sequence)
        return AliasesView.of(row)

    @api.put("/{name}/aliases/{alias}", summary="Move an alias to a version", responses=problems(404, 412, 422))
    async def move(
        name: NameInPath,
        alias: NameInPath,
        target: AliasTarget,
        response: Response,
        if_match: Annotated[
            str | None,
            Header(description="ETag of GET .../aliases; the change is refused if the aliases have changed since."),
        ] = None,
    ) -> AliasesView:
        """Moves the alias at once and announces it as ModelPromoted.

        If the alias names the version already, nothing changes and nothing is announced.
        """
        await model(name)
        ref = model_ref(name)
        async with runtime.transact([ref]) as command:
            row = command.unit.rows[ref]
            state = row.state
            assert isinstance(state, ModelState)
            if if_match is not None and if_match != _etag(row.sequence):
                detail = (
                    f"model {name!r} is at {_etag(row.sequence)}, not at {if_match}; read its aliases again, then send "
                    "the change again if it is still wanted"
                )
                raise Problem(412, "The model has changed", detail)
            if target.version not in state.versions:
                raise _unknown_version(name, target.version, state)
            if state.aliases.get(alias) != target.version:
                command.unit.apply(promote(name, alias, target.version, state))
            moved = ModelRow(name, _model_state(command.unit.states[ref]), command.unit.rows[ref].sequence)
        response.headers["ETag"] = _etag(moved.sequence)
        return AliasesView.of(moved)

    return api


def _model_state(state: object) -> ModelState:
    assert isinstance(state, ModelState)
    return state


def _unknown_version(name: str, version: str, state: ModelState) -> Problem:
    reason = Reason(
        field="version",
        value=version,
        message=f"model {name!r} has no such version",
        remedy=f"use one of {', '.join(state.versions[-_NAMED:])}",
    )
    return Problem.of(422, "Unknown version", [reason])


def _etag(sequence: int) -> str:
    return f'"{sequence}"'
