"""Why: requests a second of the services' routes as a share of a bare server's, in turns, and accepted starts a second."""

import asyncio
import json
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.request import urlopen

from benchmarks.edge.load import ask
from benchmarks.edge.rows import put_jobs, put_models
from benchmarks.edge.servers import bare_tables, database_of, serving, serving_bare
from benchmarks.full_loop import Servers
from schemas.generate.examples import REQUEST

API = "/api/v1"
_ROWS = 200
_LIMIT = 50
_READERS = 8
_STARTERS = 16


@dataclass(frozen=True)
class Read:
    """One answer that both arms give."""

    name: str
    service: str
    ours: str
    bare: str


def _reads(job_id: str) -> tuple[Read, ...]:
    return (
        Read("job", "orchestrator", f"{API}/training/{job_id}", f"/job/{job_id}"),
        Read("jobs", "orchestrator", f"{API}/training", "/jobs"),
        Read("models", "registry", f"{API}/models", "/models"),
        Read("progress", "orchestrator", f"{API}/training/{job_id}/progress", f"/progress/{job_id}"),
        Read("health", "orchestrator", f"{API}/health/ready", "/health"),
    )


async def measure(servers: Servers, *, rounds: int, seconds: float) -> dict[str, Any]:
    """`reads` and `start_per_s`, and the requests a second of both arms that they come from, round by round."""
    url = servers.database_url
    async with (
        serving("orchestrator", servers.bootstrap, url) as jobs,
        serving("registry", servers.bootstrap, url) as models,
    ):
        job_id = await put_jobs(database_of(url, "neuroweaver_orchestrator"), _ROWS)
        await put_models(database_of(url, "neuroweaver_registry"), _ROWS)
        await asyncio.to_thread(_settle, jobs, models)
        tables = await asyncio.to_thread(_answers, jobs, models, job_id)
        async with serving_bare(await bare_tables(url, "neuroweaver_bare", tables)) as bare:
            ports = {"orchestrator": jobs, "registry": models}
            found = await _alternate(_reads(job_id), ports, bare, rounds, seconds)
    async with serving("orchestrator", servers.bootstrap, url) as jobs:
        body = json.dumps({**REQUEST, "job_id": "JOB_ID"})
        starts = [
            (await ask(jobs, f"{API}/training/start", connections=_STARTERS, seconds=seconds * 2, body=body)).per_second
            for _ in range(rounds)
        ]
    return {
        "reads": {name: median(one["ratio"] for one in of) for name, of in found.items()},
        "start_per_s": median(starts),
        "rounds": {**found, "start": starts},
    }


async def _alternate(
    reads: tuple[Read, ...], ports: dict[str, int], bare: int, rounds: int, seconds: float
) -> dict[str, list[dict[str, float]]]:
    """By read and round: requests a second of both arms, one right after the other, and their ratio."""
    found: dict[str, list[dict[str, float]]] = {read.name: [] for read in reads}
    for number in range(rounds):
        for read in reads:
            arms = [("bare", bare, read.bare), ("ours", ports[read.service], read.ours)]
            per_second = {
                arm: (await ask(port, path, connections=_READERS, seconds=seconds)).per_second
                for arm, port, path in (arms if number % 2 else arms[::-1])
            }
            found[read.name].append({**per_second, "ratio": per_second["ours"] / per_second["bare"]})
    return found


def _settle(jobs: int, models: int) -> None:
    """Every connection of the pools has been used before anything is measured."""
    for _ in range(20):
        _get(jobs, f"{API}/training")
        _get(models, f"{API}/models")


def _answers(jobs: int, models: int, job_id: str) -> dict[str, dict[str, str]]:
    """What the services answer, as rows for the bare server: the same bytes."""
    listed = json.loads(_get(jobs, f"{API}/training?limit={_LIMIT}"))["items"][::-1]
    versions = json.loads(_get(models, f"{API}/models?limit={_LIMIT}"))["items"][::-1]
    return {
        "job": {job_id: _get(jobs, f"{API}/training/{job_id}")},
        "progress": {job_id: _get(jobs, f"{API}/training/{job_id}/progress")},
        "jobs": {item["job_id"]: _text(item) for item in listed},
        "models": {item["id"]: _text(item) for item in versions},
    }


def _text(item: object) -> str:
    return json.dumps(item, separators=(",", ":"))


def _get(port: int, path: str) -> str:
    with urlopen(f"http://127.0.0.1:{port}{path}") as answer:
        text: str = answer.read().decode()
        return text
