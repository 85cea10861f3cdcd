"""How the cost of a registration grows with the versions of its model: the tenth version of new models against the 10,000th of one,
in turns."""

import time
from statistics import median
from uuid import uuid4

from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.full_loop import Servers
from schemas.artifacts import ArtifactRef
from schemas.jobs import StepRequested, StepResult
from schemas.models import Lineage, ModelRegistered
from schemas.steps import RegisterSettings
from services.chassis.kernel import store
from services.chassis.kernel.transaction.commands import transact
from services.chassis.migrations.migrate import migrate
from services.chassis.settings import ServiceSettings
from services.registry.domain.models import RegistryDomain
from services.registry.domain.registering import register, rows_of
from tests.steps import request

FEW, MANY = 10, 10_000
_ADAPTER = ArtifactRef(uri="/adapter", sha256="a" * 64, size=9_803_264)
_RESULTS = {
    "prepare": StepResult(facts={"dataset_sha256": "d" * 64}),
    "train": StepResult(outputs={"adapter": _ADAPTER}, metrics={"loss": 0.4}),
}


async def growth(servers: Servers, *, rounds: int, many: int) -> float:
    """Return the median time of the `many`-th registration into one model as a multiple of that of the tenth into another."""
    database = f"bench_{uuid4().hex[:8]}"
    settings = ServiceSettings(database_url=servers.database_url)
    url = settings.database_url_for(database)
    await migrate(settings.model_copy(update={"registry_database_url": url}), "registry")
    engine = store.connect(url)
    try:
        for number in range(many - FEW):
            await _register(engine, "large", number)
        few, large = list[float](), list[float]()
        for turn in range(rounds):
            took = [await _register(engine, f"small-{turn}", number) for number in range(FEW)]
            few.append(median(took[FEW // 2 :]))
            took = [await _register(engine, "large", many + turn * FEW + number) for number in range(FEW)]
            large.append(median(took[FEW // 2 :]))
    finally:
        await engine.dispose()
    return median(late / early for early, late in zip(few, large, strict=True))


async def _register(engine: AsyncEngine, model: str, number: int) -> float:
    """Register one version and move the alias to it; return the seconds of the transaction."""
    asked = _asked(model, number)
    wanted = ModelRegistered(model=model, version="", artifact=_ADAPTER, lineage=_lineage(asked), metrics={"loss": 0.4})
    begun = time.perf_counter()
    async with transact(engine, RegistryDomain(), None, rows_of(asked, model, "candidate")) as command:
        _, decisions = register(asked, model, "candidate", wanted, command.unit.states)
        for decision in decisions:
            command.unit.apply(decision)
    return time.perf_counter() - begun


def _asked(model: str, number: int) -> StepRequested:
    settings = RegisterSettings(base_model="base", model=model)
    return request(
        f"{model}-{number}", "register", kind="register", settings=settings, inputs={"adapter": _ADAPTER}, results=_RESULTS
    )


def _lineage(asked: StepRequested) -> Lineage:
    return Lineage(
        job_id=asked.job_id, step=asked.step, requester="bench", base_model="base", base_model_sha256="b" * 64,
        dataset_sha256=f"{abs(hash(asked.job_id)):064x}", configuration={"rank": 8}, results=_RESULTS,
    )  # fmt: skip
