"""The services as `neuroweaver serve` runs them, and the bare server beside them, each a process of its own."""

import asyncio
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx2
from sqlalchemy.engine import make_url

_PATIENCE_SECONDS = 120.0
_ENDING_SECONDS = 40.0


@asynccontextmanager
async def serving(service: str, bootstrap: str, database_url: str) -> AsyncIterator[int]:
    """Run one service at the given port until it is ready; its log is shown if it does not become ready."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ,
            "NEUROWEAVER_KAFKA_BOOTSTRAP": bootstrap,
            "NEUROWEAVER_DATABASE_URL": database_url,
            "NEUROWEAVER_HTTP_PORT": str(port),
            "NEUROWEAVER_HOME": home,
            "NEUROWEAVER_LOG_LEVEL": "WARNING",
        }
        async with _process(["-m", "services.cli.main", "serve", service], environment, Path(home) / "log") as child:
            await _until_answers(child, f"http://127.0.0.1:{port}/api/v1/health/ready", Path(home) / "log")
            yield port


@asynccontextmanager
async def serving_bare(database_url: str) -> AsyncIterator[int]:
    """Run the bare server over the tables of `database_url`."""
    port = free_port()
    with tempfile.TemporaryDirectory() as home:
        arguments = ["-m", "benchmarks.edge.bare", str(port), database_url]
        async with _process(arguments, os.environ.copy(), Path(home) / "log") as child:
            await _until_answers(child, f"http://127.0.0.1:{port}/health", Path(home) / "log")
            yield port


@asynccontextmanager
async def _process(
    arguments: Sequence[str], environment: dict[str, str], log: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("wb") as said:
        child = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=environment, stdin=asyncio.subprocess.PIPE, stdout=said, stderr=said
        )
    assert child.stdin is not None
    try:
        yield child
    finally:
        child.stdin.close()
        if child.returncode is None:
            child.terminate()
        try:
            async with asyncio.timeout(_ENDING_SECONDS):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()


async def _until_answers(child: asyncio.subprocess.Process, address: str, log: Path) -> None:
    async with asyncio.timeout(_PATIENCE_SECONDS), httpx2.AsyncClient() as client:
        while True:
            if child.returncode is not None:
                said = await asyncio.to_thread(log.read_text)
                raise RuntimeError(f"{address} ended with {child.returncode}: {said[-2000:]}")
            try:
                if (await client.get(address)).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.2)


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def database_of(database_url: str, name: str) -> str:
    """Return the URL of another database on the same server."""
    return make_url(database_url).set(database=name).render_as_string(hide_password=False)


async def bare_tables(database_url: str, name: str, tables: dict[str, dict[str, str]]) -> str:
    """Create a database with a table for each of `tables`, of rows with `key` and `body`, newest last; returns its URL."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    connection = await asyncpg.connect(url := database_of(database_url, name))
    for table, rows in tables.items():
        await connection.execute(f"CREATE TABLE {table} (key text PRIMARY KEY, at bigint NOT NULL, body text NOT NULL)")
        await connection.execute(f"CREATE INDEX ON {table} (at DESC, key DESC)")
        records = [(key, at, body) for at, (key, body) in enumerate(rows.items())]
        await connection.copy_records_to_table(table, records=records)
    await connection.execute("ANALYZE")
    await connection.close()
    return url
