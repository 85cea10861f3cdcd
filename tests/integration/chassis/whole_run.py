"""Everything that a run of the whole system says and keeps, to be searched for secrets."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from schemas.steps import SERVICES
from schemas.topics import CATALOGUE
from services.chassis.process.redaction import forms_of
from tests.log import read_all
from tests.toy import until


@dataclass
class Said:
    """Texts by their origin."""

    texts: dict[str, str] = field(default_factory=dict)

    def places_of(self, secrets: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the places of each secret, in any form."""
        return [
            (place, name)
            for place, text in self.texts.items()
            for name, secret in secrets.items()
            if any(form in text for form in forms_of(secret))
        ]


async def whole_run(
    environment: Mapping[str, str], home: Path, plain_kafka: str, databases: Mapping[str, str], request: dict[str, Any]
) -> Said:
    """Run up, a failing job, status, doctor, a page of each answer, and down; then return the content of files, topics and
    tables."""
    said = Said()

    async def command(*arguments: str) -> str:
        def call() -> "subprocess.CompletedProcess[str]":
            return subprocess.run(
                [sys.executable, "-m", "services.cli.main", *arguments],
                env={**os.environ, **environment}, capture_output=True, text=True, timeout=300,
            )  # fmt: skip

        ended = await asyncio.to_thread(call)
        said.texts[" ".join(arguments)] = ended.stdout + ended.stderr
        return ended.stdout

    await command("up", "--detach")
    try:
        http = json.loads(await command("status", "--json"))["http"]
        async with httpx2.AsyncClient(base_url=f"{http}/api/v1/", timeout=60) as client:
            started = await client.post("training/start", json=request)
            assert started.status_code == 202, started.text
            job = f"training/{request['job_id']}"

            async def failed() -> bool:
                return bool((await client.get(job)).json().get("status") == "failed")

            await asyncio.gather(command("status"), command("doctor"), until(failed, seconds=120))
            routes = (await client.get(f"{http}/openapi.json")).json()["paths"]
            paths = [path for path, methods in routes.items() if "get" in methods and "{" not in path]
            assert len(paths) > 10
            for path in (f"/api/v1/{job}", *paths):
                answer = await client.get(f"{http}{path}")
                assert answer.status_code != 404, path
                said.texts[path] = answer.text
    finally:
        await command("down")
    said.texts |= await asyncio.to_thread(_files, home)
    for topic in CATALOGUE:
        records = await read_all(plain_kafka, topic.name)
        said.texts[topic.name] = "\n".join(f"{record.value!r} {record.headers!r}" for record in records)
    for service in SERVICES:
        said.texts[f"database of {service}"] = await _rows(databases[service])
    return said


def _files(home: Path) -> dict[str, str]:
    kept = [path for path in home.rglob("*") if path.is_file() and path.name != "stack.json"]
    return {str(file): file.read_text(errors="replace") for file in kept}


async def _rows(url: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('projection', 'operational')"
        )
        rows = [await connection.fetch(f"SELECT row::text FROM {table[0]} AS row") for table in tables]
    finally:
        await connection.close()
    return "\n".join(row[0] for of_table in rows for row in of_table)
