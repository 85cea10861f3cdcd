"""Requests a second of the services' routes as a share of a bare server's, in turns, and accepted starts a second."""

import asyncio
import json
from collections.abc import Mapping, Sequence
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
_CYCLE = 200
"""Number of jobs, or pages, that are requested in turns, so that most requests find unchanged rows."""
_LIMIT = 50
_ROWS = _CYCLE + _LIMIT
_MANY = 1_500
"""More jobs than a service caches answers for, so that each answer is made again."""
_READERS = 8
_STARTERS = 16


@dataclass(frozen=True)
class Read:
    """Pairs of paths with the same answers in both arms, requested in turns."""

    name: str
    service: str
    paths: Sequence[tuple[str, str]]

    @property
    def ours(self) -> list[str]:
        """Paths of the service."""
        return [ours for ours, _ in self.paths]

    @property
    def bare(self) -> list[str]:
        """Paths of the bare server."""
        return [bare for _, bare in self.paths]


@dataclass(frozen=True)
class Listed:
    """The items of a service's list, newest first."""

    items: list[dict[str, Any]]
    pages: list[str]
    """Queries of the pages that start at each of the first items."""

    def paths(self, path: str, bare: str) -> list[tuple[str, str]]:
        """Return paths of the full pages that are requested in turns; the bare server numbers its rows, oldest first."""
        return [(path + query, f"{bare}?behind={len(self.items) - at}") for at, query in enumerate(self.pages[:_CYCLE])]


def _reads(job_ids: Sequence[str], jobs: Listed, models: Listed) -> tuple[Read, ...]:
    one = [(f"{API}/training/{job_id}", f"/job/{job_id}") for job_id in job_ids]
    progress = [(f"{API}/training/{job_id}/progress", f"/progress/{job_id}") for job_id in job_ids[:_CYCLE]]
    return (
        Read("job", "orchestrator", one[:_CYCLE]),
        Read("job_anew", "orchestrator", one),
        Read("jobs", "orchestrator", jobs.paths(f"{API}/training", "/jobs")),
        Read("models", "registry", models.paths(f"{API}/models", "/models")),
        Read("progress", "orchestrator", progress),
        Read("health", "orchestrator", [(f"{API}/health/ready", "/health")]),
    )


async def measure(servers: Servers, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Return `reads` and `start_per_s`, and the requests per second of both arms from which they are computed, round by
    round."""
    url = servers.database_url
    async with (
        serving("orchestrator", servers.bootstrap, url) as jobs,
        serving("registry", servers.bootstrap, url) as models,
    ):
        job_ids = await put_jobs(database_of(url, "neuroweaver_orchestrator"), _MANY)
        await put_models(database_of(url, "neuroweaver_registry"), _ROWS)
        listed = [await asyncio.to_thread(_listed, jobs, "training"), await asyncio.to_thread(_listed, models, "models")]
        reads, ports = _reads(job_ids[::-1], *listed), {"orchestrator": jobs, "registry": models}
        tables = await asyncio.to_thread(_answers, jobs, job_ids, *listed)
        async with serving_bare(await bare_tables(url, "neuroweaver_bare", tables)) as bare:
            await asyncio.to_thread(_require_same, reads, ports, bare)
            found = await _alternate(reads, ports, bare, rounds, seconds)
    async with serving("orchestrator", servers.bootstrap, url) as jobs:
        body = json.dumps({**REQUEST, "job_id": "JOB_ID"})
        starts = [
            (await ask(jobs, [f"{API}/training/start"], connections=_STARTERS, seconds=seconds * 2, body=body)).per_second
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
    """Return by read and round the requests per second of both arms, measured one after the other, and their ratio."""
    found: dict[str, list[dict[str, float]]] = {read.name: [] for read in reads}
    for number in range(rounds):
        for read in reads:
            arms = [("bare", bare, read.bare), ("ours", ports[read.service], read.ours)]
            per_second = {
                arm: (await ask(port, paths, connections=_READERS, seconds=seconds)).per_second
                for arm, port, paths in (arms if number % 2 else arms[::-1])
            }
            found[read.name].append({**per_second, "ratio": per_second["ours"] / per_second["bare"]})
    return found


def _listed(port: int, resource: str) -> Listed:
    """Read all items of a list, page by page."""
    items: list[dict[str, Any]] = []
    pages = [""]
    while len(items) < _ROWS:
        query = pages[-1]
        page = json.loads(_get(port, f"{API}/{resource}{query}{'&' if query else '?'}limit=1"))
        items += page["items"]
        pages.append(f"?cursor={page['next']}")
    return Listed(items, pages)


def _answers(port: int, job_ids: Sequence[str], jobs: Listed, models: Listed) -> dict[str, dict[str, str]]:
    """Return the services' answers as rows for the bare server, oldest first and byte for byte the same."""
    return {
        "job": {job_id: _get(port, f"{API}/training/{job_id}") for job_id in job_ids},
        "progress": {job_id: _get(port, f"{API}/training/{job_id}/progress") for job_id in job_ids[-_CYCLE:]},
        "jobs": {item["job_id"]: _text(item) for item in jobs.items[::-1]},
        "models": {item["id"]: _text(item) for item in models.items[::-1]},
    }


def _require_same(reads: Sequence[Read], ports: Mapping[str, int], bare: int) -> None:
    """Raises RuntimeError if the answers of the arms differ, except readiness and the cursor of the next page."""
    for read in reads:
        for ours, theirs in read.paths if read.name != "health" else ():
            told, expected = json.loads(_get(ports[read.service], ours)), json.loads(_get(bare, theirs))
            if told.get("items", told) != expected.get("items", expected) or len(told.get("items", [0] * _LIMIT)) != _LIMIT:
                raise RuntimeError(f"{ours} and the bare server's {theirs} are not the same")


def _text(item: object) -> str:
    return json.dumps(item, separators=(",", ":"))


def _get(port: int, path: str) -> str:
    with urlopen(f"http://127.0.0.1:{port}{path}") as answer:
        text: str = answer.read().decode()
        return text
