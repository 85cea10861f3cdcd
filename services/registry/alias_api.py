"""Routes that show and change the aliases of a model and the rules by which they move. The commands decide under locks."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from services.chassis.serving.problem import problems
from services.chassis.serving.web.parameters import NameInPath
from services.registry.changing import AliasChanges, Changing, etag, known_model, no_model
from services.registry.domain.aliases import earlier_version, remove
from services.registry.domain.policies import set_policy
from services.registry.domain.promoting import Decided, promotion, rollback
from services.registry.domain.state import move_ref
from services.registry.policy_views import PolicyAsked, PolicyRemovalAsked, PolicyView
from services.registry.queries import ModelQueries
from services.registry.views import AliasesView, AliasTarget, RemovalAsked, RollbackTarget

IfMatch = Annotated[
    str | None,
    Header(
        description="ETag of GET .../aliases; the change is refused if an alias of the model or its policy has changed since. A "
        "protected alias needs it."
    ),
]
_ALIAS = "/{name}/aliases/{alias}"


def alias_routes(changes: AliasChanges) -> APIRouter:
    """All routes about aliases, below `/models`."""
    api = APIRouter()
    models = changes.models

    async def aliases_of(name: str, response: Response) -> AliasesView:
        return await aliases_shown(models, name, response)

    async def policy_of(name: str, alias: str, response: Response) -> PolicyView:
        state = (await known_model(models, name)).state
        response.headers["ETag"] = etag(state)
        return PolicyView(name=name, alias=alias, sequence=state.aliases_at, policy=state.policy(alias))

    @api.get("/{name}/aliases", summary="Show a model's aliases and their last moves", responses=problems(404, 422))
    async def aliases(name: NameInPath, response: Response) -> AliasesView:
        """The ETag of the answer is the value for If-Match of what changes an alias."""
        return await aliases_of(name, response)

    @api.put(
        _ALIAS,
        summary="Move an alias to a version",
        responses={
            202: {"model": AliasesView, "description": "It waits for approval"},
            **problems(404, 409, 412, 422, 428),
        },
    )
    async def move(
        name: NameInPath, alias: NameInPath, target: AliasTarget, response: Response, if_match: IfMatch = None
    ) -> AliasesView:
        """Moves the alias at once and announces it as ModelPromoted, if its gates let the version pass.

        An archived version is refused, and a deprecated one unless that is accepted. If a second person approves what the alias names, the answer is 202: PromotionRequested announces that it waits for them.
        If the alias names the version already, nothing changes and nothing is announced.
        """
        async with changes.open(name, alias, target.by, target.reason, if_match) as changing:
            if changing.model.aliases.get(alias) != target.version:
                wish = await changing.wish(
                    target.version,
                    accepts_inconclusive=target.accept_inconclusive,
                    accepts_deprecated=target.accept_deprecated,
                )
                changing.decide(promotion(wish, changing.states))
        response.status_code = 202 if changing.waits else 200
        return await aliases_of(name, response)

    @api.post(
        f"{_ALIAS}/rollback",
        summary="Let an alias go back to a version that it named before",
        responses=problems(404, 409, 412, 422, 428),
    )
    async def back(
        name: NameInPath, alias: NameInPath, target: RollbackTarget, response: Response, if_match: IfMatch = None
    ) -> AliasesView:
        """Moves the alias at once, announces it as ModelRolledBack, and forgets the version that it named as a good one.

        Neither its gates nor a second person are asked for the days that the policy of the alias names.
        """
        async with changes.open(name, alias, target.by, target.reason, if_match) as changing:
            version = earlier_version(alias, target.version, changing.model)
            wish = await changing.wish(version, accepts_inconclusive=target.accept_inconclusive)
            changing.decide(rollback(wish, changing.states, changing.now))
        return await aliases_of(name, response)

    @api.delete(_ALIAS, summary="Remove an alias", responses=problems(404, 412, 422, 428))
    async def removed(
        name: NameInPath,
        alias: NameInPath,
        asked: Annotated[RemovalAsked, Query()],
        response: Response,
        if_match: IfMatch = None,
    ) -> AliasesView:
        """Removes the alias at once and announces it as AliasRemoved; its version and its policy stay."""
        async with changes.open(name, alias, asked.by, asked.reason, if_match) as changing:
            await changing.command.lock([move_ref(changing.change.id)])
            changing.decide(Decided((remove(name, alias, changing.model, changing.change),)))
        return await aliases_of(name, response)

    @api.get(f"{_ALIAS}/policy", summary="Show the rules by which an alias moves", responses=problems(404, 422))
    async def policy(name: NameInPath, alias: NameInPath, response: Response) -> PolicyView:
        """An alias without a policy has no gates, is not protected and needs no approval."""
        return await policy_of(name, alias, response)

    @api.put(f"{_ALIAS}/policy", summary="Set the rules by which an alias moves", responses=problems(404, 412, 422, 428))
    async def ruled(
        name: NameInPath, alias: NameInPath, asked: PolicyAsked, response: Response, if_match: IfMatch = None
    ) -> PolicyView:
        """Announces them as AliasPolicySet. They hold for the next move; the alias stays where it is.

        Where they need no approval any more, a request that waits for it is superseded.
        """
        async with changes.open(name, alias, asked.by, asked.reason, if_match) as changing:
            _rule(changing, asked)
        return await policy_of(name, alias, response)

    @api.delete(
        f"{_ALIAS}/policy", summary="Remove the rules by which an alias moves", responses=problems(404, 412, 422, 428)
    )
    async def unruled(
        name: NameInPath,
        alias: NameInPath,
        asked: Annotated[PolicyRemovalAsked, Query()],
        response: Response,
        if_match: IfMatch = None,
    ) -> PolicyView:
        """Announces it as AliasPolicySet without a policy."""
        async with changes.open(name, alias, asked.by, asked.reason, if_match) as changing:
            _rule(changing, None)
        return await policy_of(name, alias, response)

    return api


def _rule(changing: Changing, asked: PolicyAsked | None) -> None:
    policy = None if asked is None else asked.policy
    if decision := set_policy(changing.name, changing.alias, policy, changing.model, changing.change):
        changing.decide(Decided((decision,)))


async def aliases_shown(models: ModelQueries, name: str, response: Response) -> AliasesView:
    """Return the aliases of a model, with their ETag as a header of the response. Raises a 404 Problem."""
    row = await models.with_moves(name)
    if row is None:
        raise no_model(name)
    response.headers["ETag"] = etag(row.state)
    return AliasesView.of(row)
