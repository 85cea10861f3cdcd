"""How the time of a filtered page grows with the table: 100,000 versions of 1,000 models against 1,000 versions of ten, in turns."""

import json
import time
from statistics import median
from uuid import uuid4

import asyncpg

from benchmarks.full_loop import Servers
from schemas.artifacts import ArtifactRef
from schemas.jobs import StepResult
from schemas.models import Lineage, ModelRegistered
from services.chassis.migrations.migrate import migrate
from services.chassis.serving.reads import Reads
from services.chassis.settings import ServiceSettings
from services.registry.queries import ModelQueries, VersionsAsked

PER_MODEL = 100
FILTERS = (
    "name = 'model-7' AND metrics.exact_match >= 0.5",
    "metrics.exact_match >= 0.5 AND purpose = 'answers'",
    "metrics.exact_match > 2",
)
"""A page that an index leads to, one that most versions are on, and one that no version is on."""
STORED = (
    """INSERT INTO projection.model (key, state, named)
       SELECT 'model-' || n, '{"count": 100, "aliases": {"candidate": "1.0.99"}}', '{"1.0.99": ["candidate"]}'
       FROM generate_series(0, $1::int / $2::int - 1) AS n""",
    """INSERT INTO projection.registration (key, model, version, job_id, requester, base_model, purpose, registered_at, state)
       SELECT 'job-' || n || '/register', 'model-' || n % ($1 / $2), '1.0.' || n / ($1 / $2), 'job-' || n, 'bench', 'base', 'answers',
              TIMESTAMPTZ '2026-11-02' + n * INTERVAL '1 second',
              jsonb_set($3::jsonb, '{registered,metrics,exact_match}', to_jsonb(n % 100 / 100.0))
       FROM generate_series(0, $1::int - 1) AS n""",
    "ANALYZE projection.model",
    "ANALYZE projection.registration",
)
"""Stores $1 versions, $2 of each model, of the state $3."""


def version_state() -> str:
    """Return the state of a version as a job with three steps makes it."""
    adapter = ArtifactRef(uri="/adapter", sha256="a" * 64, size=9_803_264)
    results = {
        "prepare": StepResult(facts={"dataset_sha256": "d" * 64, "base_model_sha256": "b" * 64}, metrics={"rows": 240.0}),
        "train": StepResult(outputs={"adapter": adapter}, metrics={"loss": 0.4, "seconds": 61.5}),
        "evaluate": StepResult(inputs={"adapter": "a" * 64}, metrics={"exact_match": 0.9, "loss": 0.41}),
    }
    lineage = Lineage(
        job_id="job", step="register", requester="bench", base_model="base", base_model_sha256="b" * 64, dataset_sha256="d" * 64,
        configuration={f"setting-{number}": number for number in range(40)}, results=results,
    )  # fmt: skip
    made = ModelRegistered(model="model", version="1.0.0", artifact=adapter, lineage=lineage, metrics={"loss": 0.4})
    return json.dumps({"registered": made.model_dump(mode="json")})


async def store(url: str, versions: int, per_model: int = PER_MODEL) -> None:
    """Put versions into the database of a registry."""
    connection = await asyncpg.connect(url)
    try:
        for number, statement in enumerate(STORED):
            await connection.execute(statement, *(versions, per_model, version_state())[: (2, 3, 0, 0)[number]])
    finally:
        await connection.close()


async def growth(servers: Servers, *, rounds: int, many: int) -> float:
    """Return the median time of a page of `many` versions as a multiple of that of a page of 1,000; of the worst filter."""
    few_pages, many_pages = [await _queries(servers, versions) for versions in (1000, many)]
    try:
        return max([await _grown(few_pages, many_pages, text, rounds) for text in FILTERS])
    finally:
        few_pages.reads.close()
        many_pages.reads.close()


async def _queries(servers: Servers, versions: int) -> ModelQueries:
    settings = ServiceSettings(database_url=servers.database_url)
    url = settings.database_url_for(f"bench_{uuid4().hex[:8]}")
    await migrate(settings.model_copy(update={"registry_database_url": url}), "registry")
    await store(url, versions)
    return ModelQueries(Reads(url))


async def _grown(few: ModelQueries, many: ModelQueries, text: str, rounds: int) -> float:
    ratios = []
    for turn in range(rounds + 1):
        early, late = [await _seconds(queries, text) for queries in (few, many)]
        if turn:  # the first of each plans the statement
            ratios.append(late / early)
    return median(ratios)


async def _seconds(queries: ModelQueries, text: str) -> float:
    begun = time.perf_counter()
    await queries.page(VersionsAsked(filter=text))
    return time.perf_counter() - begun
