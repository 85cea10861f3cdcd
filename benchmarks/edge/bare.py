"""The least that an answer costs in FastAPI with asyncpg: one query, one JSON text, and nothing that the services promise."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import uvicorn
from fastapi import FastAPI, HTTPException, Response

LIMIT = 50
_ONE = "SELECT body FROM {} WHERE key = $1"
_LIST = "SELECT body FROM {} WHERE at < $1 ORDER BY at DESC, key DESC LIMIT $2"
_NEWEST = 2**62


def application(database_url: str) -> FastAPI:
    """Return routes over tables of `key`, `at`, `body`, where `body` is the service's answer."""
    held: list[asyncpg.Pool[asyncpg.Record]] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(database_url, min_size=8, max_size=16, reset=_as_it_is) as pool:
            held.append(pool)
            yield

    app = FastAPI(lifespan=lifespan)

    async def one(table: str, key: str) -> Response:
        row = await held[0].fetchrow(_ONE.format(table), key)
        if row is None:
            raise HTTPException(404)
        return Response(row["body"], media_type="application/json")

    async def many(table: str, limit: int, behind: int) -> Response:
        rows = await held[0].fetch(_LIST.format(table), behind, limit)
        items = ",".join([row["body"] for row in rows])
        return Response(f'{{"items":[{items}],"next":null}}', media_type="application/json")

    @app.get("/job/{job_id}")
    async def job(job_id: str) -> Response:
        return await one("job", job_id)

    @app.get("/progress/{job_id}")
    async def progress(job_id: str) -> Response:
        return await one("progress", job_id)

    @app.get("/jobs")
    async def jobs(limit: int = LIMIT, behind: int = _NEWEST) -> Response:
        return await many("jobs", limit, behind)

    @app.get("/models")
    async def models(limit: int = LIMIT, behind: int = _NEWEST) -> Response:
        return await many("models", limit, behind)

    @app.get("/health")
    async def health() -> dict[str, object]:
        return {"status": "ready", "services": {"orchestrator": "ready"}}

    return app


async def _as_it_is(_connection: object) -> None:
    """Skip the reset of a released session, which would cost a second round trip for every answer."""


async def main(port: str, database_url: str) -> None:
    """Run the server until standard input ends."""
    server = uvicorn.Server(
        uvicorn.Config(application(database_url), port=int(port), log_level="warning", access_log=False)
    )
    serving = asyncio.create_task(server.serve())
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
