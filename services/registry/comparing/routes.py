"""Routes that compare versions and recommend one; they only read."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, get_args

from fastapi import APIRouter, Query

from services.chassis.executor.folders import cache_of
from services.chassis.serving.problem import Problem, problems
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.web.parameters import NameInPath, Text
from services.registry.changing import no_model
from services.registry.comparing.answers import ANSWERS_AT_MOST, StoredAnswers
from services.registry.comparing.comparison import FEWEST, MOST, Comparison, compared
from services.registry.comparing.recommendation import Goal, Recommendation, recommended
from services.registry.queries import MODEL_ID, ModelQueries
from services.registry.views import VersionView, stored_version

_CONSIDERED = 50
"""How many of a model's newest versions are considered for a recommendation."""
_GOALS: tuple[Goal, ...] = get_args(Goal)
_ID = MODEL_ID.strip("^$")
_WEIGHTED = rf"({'|'.join(_GOALS)})(=(0\.[0-9]{{0,5}}[1-9]|[1-9][0-9]{{0,5}}(\.[0-9]{{1,6}})?))?"


def comparing_router(runtime: Runtime) -> APIRouter:
    """Return the routes `/comparison` and `/models/{name}/recommendation`."""
    api = APIRouter(tags=["models"])
    models = ModelQueries(runtime.reads)
    settings = runtime.settings
    answers_of = StoredAnswers(settings.artifacts_uri, cache_of(settings.home))

    async def version(reference: str) -> VersionView:
        name, _, wanted = reference.partition("@")
        found = await models.version(name, wanted)
        if found is None:
            raise Problem(
                404, "Not found", f"there is no version {reference!r}; GET /api/v1/models lists those that there are"
            )
        return stored_version(found)

    @api.get("/comparison", summary="Compare two to five versions", responses=problems(404, 422))
    async def comparison(
        versions: Annotated[
            str,
            Query(
                pattern=rf"^{_ID}(,{_ID}){{{FEWEST - 1},{MOST - 1}}}$",
                description="Two to five of `name@version`, `name@alias` or `name`, separated by commas.",
            ),
        ],
        everything: Annotated[bool, Query(description="Also what does not differ.")] = False,
        answers: Annotated[
            int, Query(ge=0, le=ANSWERS_AT_MOST, description="To how many held-out prompts the answers are shown.")
        ] = 0,
    ) -> Comparison:
        """Metrics are compared with the first version: with the interval of the difference, and only where both were measured on
        the same data. How they were made is shown where it differs."""
        views = [await version(reference) for reference in versions.split(",")]
        found = compared(views, everything=everything)
        if not answers:
            return found
        rows, remarks = await asyncio.to_thread(answers_of.side_by_side, views, answers)
        return found.model_copy(update={"answers": tuple(rows), "remarks": (*found.remarks, *remarks)})

    @api.get("/models/{name}/recommendation", summary="Recommend a version for a goal", responses=problems(404, 422))
    async def recommendation(
        name: NameInPath,
        goal: Annotated[
            str,
            Query(
                pattern=rf"^{_WEIGHTED}(,{_WEIGHTED}){{0,2}}$",
                description="quality, latency or size; or several with weights above 0, such as quality=0.7,latency=0.3.",
            ),
        ] = "quality",
        metric: Annotated[
            Text | None, Query(description="The metric that means quality; default: the first of those that were measured.")
        ] = None,
    ) -> Recommendation:
        """Considers the newest fifty versions, with reasons, how sure that is, and what would have to be measured."""
        weights = _weights(goal)
        found = await models.recent(name, _CONSIDERED)
        if not found:
            raise no_model(name)
        return recommended(name, [stored_version(one) for one in found], weights, metric)

    return api


def _weights(text: str) -> Mapping[Goal, float]:
    weights: dict[Goal, float] = {}
    for part in text.split(","):
        named, _, number = part.partition("=")
        goal = next(one for one in _GOALS if one == named)
        weights[goal] = weights.get(goal, 0.0) + float(number or 1)
    return weights
