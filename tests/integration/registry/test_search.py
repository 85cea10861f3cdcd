"""A search of versions on real PostgreSQL: which ones a filter finds, page by page, with one statement a page that examines few rows."""

import re
from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from benchmarks.search import store
from services.chassis.serving import statements as pages
from services.chassis.serving.problem import Problem
from services.chassis.serving.reads import _SESSION, Reads
from services.registry import statements
from services.registry.queries import ModelQueries, VersionsAsked
from services.registry.search.grammar import search_of
from services.registry.settings import RegistrySettings
from services.registry.views import VersionSummary, stored_version
from tests.databases import provide

VERSIONS, PER_MODEL = 2400, 100


class Counted(Reads):
    """Reads that keep their statements."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked: list[str] = []

    async def _rows(self, statement: str, arguments: object) -> object:  # type: ignore[override]
        self.asked.append(statement)
        return await super()._rows(statement, arguments)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
async def url(database_url: str) -> str:
    own = make_url(database_url).set(database=f"search_{uuid4().hex[:8]}").render_as_string(hide_password=False)
    await provide(RegistrySettings(registry_database_url=own), "registry")
    await store(own, VERSIONS, PER_MODEL)
    return own


@pytest.fixture
async def models(url: str) -> AsyncIterator[ModelQueries]:
    reads = Counted(url)
    yield ModelQueries(reads)
    reads.close()


async def found(models: ModelQueries, text: str, limit: int = 200) -> list[VersionSummary]:
    items: list[str] = []
    cursor = None
    while True:
        page = await models.page(VersionsAsked(filter=text, limit=limit, cursor=cursor))
        items += page.items
        if (cursor := page.next) is None:
            return [VersionSummary.model_validate_json(item) for item in items]


def score(item: VersionSummary) -> float:
    return item.metrics["exact_match"] or 0.0


MATCHES: dict[str, Callable[[VersionSummary], bool]] = {
    "name = 'model-3'": lambda it: it.name == "model-3",
    "name IN ('model-3', 'model-4') AND metrics.exact_match >= 0.5": lambda it: (
        it.name in ("model-3", "model-4") and score(it) >= 0.5
    ),
    "metrics.exact_match = 0.25 OR job_id = 'job-7'": lambda it: score(it) == 0.25 or it.job_id == "job-7",
    "NOT (name LIKE 'model-1%' OR name LIKE 'model-2_') AND version >= '1.0.98'": lambda it: (
        not it.name.startswith(("model-1", "model-20", "model-21", "model-22", "model-23"))
        and it.version in ("1.0.98", "1.0.99")
    ),
    "version > '1.0.9' AND version <= '1.0.11'": lambda it: it.version in ("1.0.10", "1.0.11"),
    "alias = 'candidate'": lambda it: it.aliases == ("candidate",),
    "alias IS NULL and version != '1.0.0'": lambda it: not it.aliases and it.version != "1.0.0",
    "alias != 'candidate' AND name = 'model-0'": lambda it: not it.aliases and it.name == "model-0",
    "metrics.\"exact_match\" IS NOT NULL AND metrics.other IS NULL": lambda it: True,
    "metrics.other > 1 OR NOT metrics.other > 1": lambda it: False,
    "registered_at < '2026-11-02T00:00:05Z'": lambda it: it.registered_at.minute == it.registered_at.hour == 0
    and it.registered_at.second < 5,
    "started_from IS NULL AND id = 'model-5@1.0.5' AND purpose = 'answers' AND requester NOT IN ('ana', 'o''hara')": lambda it: (
        it.id == "model-5@1.0.5"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
async def everything(url: str) -> list[VersionSummary]:
    reads = Reads(url)
    items: list[str] = []
    cursor = None
    while True:
        page = await ModelQueries(reads).page(VersionsAsked(limit=200, cursor=cursor))
        items += page.items
        if (cursor := page.next) is None:
            reads.close()
            return [VersionSummary.model_validate_json(item) for item in items]


@pytest.mark.parametrize("text", MATCHES)
async def test_a_filter_finds_the_versions_that_meet_it_newest_first_on_one_page_each(
    models: ModelQueries, everything: list[VersionSummary], text: str
) -> None:
    wanted = [item for item in everything if MATCHES[text](item)]
    assert len(everything) == VERSIONS
    assert await found(models, text) == wanted
    if len(wanted) < 200:
        assert await found(models, text, limit=7) == wanted


async def test_a_page_is_one_statement_and_an_item_is_what_a_single_get_shows(models: ModelQueries) -> None:
    page = await models.page(VersionsAsked(filter="name = 'model-3' AND metrics.exact_match > 0", limit=3))
    assert isinstance(models.reads, Counted)
    assert len(models.reads.asked) == 1
    for item in page.items:
        listed = VersionSummary.model_validate_json(item)
        stored = await models.version(listed.name, listed.version)
        assert stored is not None
        assert listed.registered_at == stored_version(stored).registered_at
        assert listed.aliases == stored_version(stored).aliases


async def test_a_page_of_a_search_that_finds_nothing_examines_a_thousand_versions_and_leads_on(
    models: ModelQueries,
) -> None:
    seen, cursor = 0, None
    while True:
        page = await models.page(VersionsAsked(filter="metrics.exact_match > 2", cursor=cursor))
        assert page.items == []
        seen += 1
        if (cursor := page.next) is None:
            break
    assert seen == VERSIONS // pages.EXAMINED + 1


async def test_a_cursor_belongs_to_its_filter(models: ModelQueries) -> None:
    page = await models.page(VersionsAsked(filter="name = 'model-3'", limit=3))
    for other in ("name = 'model-4'", None):
        with pytest.raises(Problem, match="other filters"):
            await models.page(VersionsAsked(filter=other, limit=3, cursor=page.next))


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("name = 'model-7' AND metrics.exact_match >= 0.5", "registration_(model|version)"),
        ("metrics.exact_match >= 0.5", "registration_newest"),
        ("NOT alias = 'candidate' OR name = 'model-7'", "registration_newest"),
        ("requester = 'bench' AND job_id = 'job-7' AND metrics.exact_match >= 0.5", "registration_job_id"),
    ],
)
async def test_the_plan_of_a_page_begins_at_an_index_and_never_sorts_the_table(url: str, text: str, index: str) -> None:
    search = search_of(text)
    listing = (statements.ITEM, statements.ROWS, statements.TIME, statements.KEY)
    statement = pages.searched_page(listing, (), False, search[:2], 50)
    connection = await asyncpg.connect(url, server_settings=_SESSION)
    try:
        await connection.execute("SET enable_seqscan = off")  # the table of the test is small
        await connection.execute(f"PREPARE page AS {statement}")
        nothing = ", ".join(["NULL"] * len(search.values))
        lines = await connection.fetch(f"EXPLAIN EXECUTE page({nothing})")
    finally:
        await connection.close()
    plan = "\n".join(line[0] for line in lines)
    assert re.search(rf"(using|on) {index}\b", plan), plan
    if index == "registration_newest":
        assert "Sort" not in plan, plan
