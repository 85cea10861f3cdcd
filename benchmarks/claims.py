"""How the cost of a claim grows with the queue: the same claims with 10 and with 1,000 attempts waiting, in turns."""

import time
from statistics import median
from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.full_loop import Servers
from services.chassis.executor.statements import ENQUEUE
from services.chassis.executor.work import claim
from services.chassis.kernel import store
from services.chassis.migrations.migrate import migrate
from services.chassis.settings import ServiceSettings

FEW, MANY = 10, 1000
_REQUESTERS = 10
_RESET = text("UPDATE work SET lease = NULL, leased_until = NULL WHERE lease IS NOT NULL")


async def growth(servers: Servers, *, rounds: int, claims: int) -> float:
    """Return the median time of a claim from 1,000 attempts of ten requesters as a multiple of that from 10."""
    database = f"bench_{uuid4().hex[:8]}"
    settings = ServiceSettings(database_url=servers.database_url)
    url = settings.database_url_for(database)
    settings = settings.model_copy(update={"trainer_database_url": url})
    await migrate(settings, "trainer")
    engine = store.connect(url)
    try:
        found = [(await _seconds(engine, FEW, claims), await _seconds(engine, MANY, claims)) for _ in range(rounds)]
    finally:
        await engine.dispose()
    return median(many / few for few, many in found)


async def _seconds(engine: AsyncEngine, waiting: int, claims: int) -> float:
    """Fill the queue and return the median seconds of one claim; each lease is given back before the next."""
    numbers = range(waiting)
    async with engine.begin() as connection:
        await connection.execute(text("TRUNCATE work"))
        await connection.execute(
            ENQUEUE,
            {
                "keys": [f"job-{number:04}/train/1" for number in numbers],
                "priorities": [0] * waiting,
                "requested_at": [(await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()] * waiting,
                "waits": [None] * waiting,
                "cancel": [False] * waiting,
                "requesters": [f"requester-{number % _REQUESTERS}" for number in numbers],
                "begun": [False] * waiting,
                "cores": [0] * waiting,
                "memory_mb": [0] * waiting,
                "device_mb": [0] * waiting,
            },
        )
    took = []
    for number in range(claims):
        begun = time.perf_counter()
        assert await claim(engine, f"lease-{number}", 60) is not None
        took.append(time.perf_counter() - begun)
        async with engine.begin() as connection:
            await connection.execute(_RESET)
    return median(took)
