"""Routes with which a second person approves or declines that an alias moves."""

from fastapi import APIRouter, Response

from services.chassis.serving.problem import problems
from services.chassis.serving.web.parameters import NameInPath
from services.registry.alias_api import IfMatch, aliases_shown
from services.registry.changing import AliasChanges
from services.registry.domain.approving import decline, waiting_for
from services.registry.domain.promoting import Decided, approval
from services.registry.views import AliasesView, ApprovalAsked, DeclineAsked

_ALIAS = "/{name}/aliases/{alias}"


def approval_routes(changes: AliasChanges) -> APIRouter:
    """All routes about approval, below `/models`."""
    api = APIRouter()
    models = changes.models

    @api.post(
        f"{_ALIAS}/approve",
        summary="Approve the move of an alias that waits for it",
        responses=problems(404, 409, 412, 422),
    )
    async def approved(
        name: NameInPath, alias: NameInPath, asked: ApprovalAsked, response: Response, if_match: IfMatch = None
    ) -> AliasesView:
        """Moves the alias and announces it as ModelPromoted with both names, if its gates, asked again, let the version pass.

        Who approves must have another name than who asked. The request waits on if the gates refuse.
        """
        async with changes.open(name, alias, asked.by, asked.reason, if_match, pinned=True) as changing:
            waiting = waiting_for(alias, asked.request, changing.model)
            wish = await changing.wish(
                waiting.version, accepts_inconclusive=asked.accept_inconclusive, accepts_deprecated=asked.accept_deprecated
            )
            changing.decide(approval(wish, waiting.id, changing.states))
        return await aliases_shown(models, name, response)

    @api.post(
        f"{_ALIAS}/decline",
        summary="Decline the move of an alias that waits for approval",
        responses=problems(404, 412, 422),
    )
    async def declined(
        name: NameInPath, alias: NameInPath, asked: DeclineAsked, response: Response, if_match: IfMatch = None
    ) -> AliasesView:
        """Announces it as PromotionDeclined; the alias stays. Who asked takes their own request back in the same way."""
        async with changes.open(name, alias, asked.by, asked.reason, if_match, pinned=True) as changing:
            waiting = waiting_for(alias, asked.request, changing.model)
            changing.decide(Decided((decline(name, waiting, alias, changing.change),)))
        return await aliases_shown(models, name, response)

    return api
