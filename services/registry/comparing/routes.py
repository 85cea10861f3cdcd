"""Routes that compare versions and recommend one; they only read."""

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated, get_args

from fastapi import APIRouter, Query

from schemas.reasons import Reason, shown
from services.chassis.executor.folders import cache_of
from services.chassis.serving.problem import Problem, problems
from services.chassis.serving.runtime import Runtime
from services.chassis.serving.web.parameters import NameInPath, Text
from services.registry.comparing.answers import ANSWERS_AT_MOST, StoredAnswers
from services.registry.comparing.comparison import FEWEST, MOST, Comparison, compared
from services.registry.comparing.recommendation import Goal, Recommendation, recommended
from services.registry.queries import MODEL_ID, ModelQueries
from services.registry.views import VersionView, stored_version

_CONSIDERED = 50
"""How many of a model's newest versions are considered for a recommendation."""
_GOALS: tuple[Goal, ...] = get_args(Goal)


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
                min_length=1, max_length=2048, description="`name@version`, `name@alias` or `name`, separated by commas."
            ),
        ],
        everything: Annotated[bool, Query(description="Also what does not differ.")] = False,
        answers: Annotated[
            int, Query(ge=0, le=ANSWERS_AT_MOST, description="To how many held-out prompts the answers are shown.")
        ] = 0,
    ) -> Comparison:
        """Metrics are compared with the first version: with the interval of the difference, and only where both were measured on
        the same data. How they were made is shown where it differs."""
        views = [await version(reference) for reference in _references(versions)]
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
                max_length=256,
                description="quality, latency or size; or several with weights, such as quality=0.7,latency=0.3.",
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
            raise Problem(404, "Not found", f"no model {name!r} is registered; GET /api/v1/models lists those that are")
        return recommended(name, [stored_version(one) for one in found], weights, metric)

    return api


def _references(text: str) -> list[str]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not FEWEST <= len(found) <= MOST:
        remedy = f"name {FEWEST} to {MOST} versions, separated by commas"
        raise _refused("query.versions", text, f"it names {len(found)} versions", remedy)
    if odd := [reference for reference in found if not re.fullmatch(MODEL_ID, reference)]:
        raise _refused("query.versions", odd[0], "it names no version", "write name@version, name@alias or name")
    return found


def _weights(text: str) -> Mapping[Goal, float]:
    weights: dict[Goal, float] = {}
    for part in text.split(","):
        named, _, number = part.partition("=")
        goal = next((one for one in _GOALS if one == named.strip()), None)
        weight = _number(number) if number else 1.0
        if goal is None or weight is None or goal in weights:
            remedy = f"use {', '.join(_GOALS)}, or several with weights, such as quality=0.7,latency=0.3"
            raise _refused("query.goal", text, f"{shown(part)} is no goal with a weight above 0", remedy)
        weights[goal] = weight
    return weights


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value <= 1e6 else None


def _refused(field: str, value: str, message: str, remedy: str) -> Problem:
    return Problem.of(
        422, "The query is not valid", [Reason(field=field, value=shown(value), message=message, remedy=remedy)]
    )
