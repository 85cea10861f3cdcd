"""Routes that show and change deployments. The commands decide under locks; what follows from them happens by itself."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from services.chassis.serving.problem import Problem, problems
from services.chassis.serving.web.parameters import NameInPath
from services.registry.deploying.commands import DeploymentCommands, etag
from services.registry.deploying.faults import Refused
from services.registry.deploying.kserve.manifest import manifest
from services.registry.deploying.settings import KserveSettings, ServingSettings
from services.registry.deploying.views import (
    ChangeAsked,
    DeploymentAsked,
    DeploymentList,
    DeploymentView,
    ManifestList,
    RetirementAsked,
)
from services.registry.deploying.wishes import target_of

IfMatch = Annotated[
    str | None,
    Header(description="ETag of GET /deployments/{name}; the wish is refused if the deployment has got another since."),
]


def deployment_router(commands: DeploymentCommands, serving: ServingSettings) -> APIRouter:
    """All routes under `/deployments`."""
    api = APIRouter(prefix="/deployments", tags=["deployments"])

    async def shown(name: str, response: Response) -> DeploymentView:
        view = await commands.view(name)
        response.headers["ETag"] = etag(view.generation)
        return view

    @api.post("", status_code=202, summary="Deploy a version", responses=problems(404, 409, 412, 422))
    async def asked_for(asked: DeploymentAsked, response: Response, if_match: IfMatch = None) -> DeploymentView:
        """Announces the wish as DeploymentRequested, if it is new; GET shows what becomes of it.

        The version that answers callers goes on until the new one is ready.
        """
        await commands.request(asked, if_match)
        return await shown(asked.name, response)

    @api.get("", summary="List the deployments that somebody wants", responses=problems(422))
    async def listed() -> DeploymentList:
        """By name, without what happened to them; there are a few hundred at most."""
        return DeploymentList(items=await commands.list())

    @api.get("/{name}", summary="Show a deployment", responses=problems(404, 422))
    async def one(name: NameInPath, response: Response) -> DeploymentView:
        """Shows what it serves and how it is, also after it was retired."""
        return await shown(name, response)

    @api.get("/{name}/manifests", summary="Render what the driver kserve applies", responses=problems(404, 409, 422))
    async def manifests(name: NameInPath) -> ManifestList:
        """For the version that serves and the one that is rolled out, whichever driver they have; no cluster is asked."""
        targets = [target_of(wish) for wish in await commands.wishes(name)]
        cluster = serving.kserve or KserveSettings()
        try:
            return ManifestList(items=tuple(manifest(target, cluster, serving.owner) for target in targets))
        except Refused as refused:
            raise Problem(409, "It cannot be rendered", refused.message) from refused

    @api.delete("/{name}", summary="Retire a deployment", responses=problems(404, 409, 422))
    async def retired(name: NameInPath, asked: Annotated[RetirementAsked, Query()], response: Response) -> DeploymentView:
        """Announces it as DeploymentRetired; answers that have begun are finished."""
        await commands.retire(name, asked)
        return await shown(name, response)

    @api.post(
        "/{name}/rollback",
        summary="Give up what is rolled out, or return to the version before",
        responses=problems(404, 409, 422),
    )
    async def back(name: NameInPath, asked: ChangeAsked, response: Response) -> DeploymentView:
        """Announces it as DeploymentRolledBack. After the bake time the version before is no longer warm: deploy it instead."""
        await commands.roll_back(name, asked)
        return await shown(name, response)

    @api.post("/{name}/advance", summary="Give a canary its next share of the callers", responses=problems(404, 409, 422))
    async def further(name: NameInPath, asked: ChangeAsked, response: Response) -> DeploymentView:
        """Announces it as DeploymentAdvanced, or DeploymentReady after the last share, whatever was measured: a person answers for it."""
        await commands.advance(name, asked)
        return await shown(name, response)

    @api.post("/{name}/retry", summary="Try again what was given up", responses=problems(404, 409, 422))
    async def again(name: NameInPath, asked: ChangeAsked, response: Response) -> DeploymentView:
        """Announces the same wish as the next generation."""
        await commands.retry(name, asked)
        return await shown(name, response)

    return api
