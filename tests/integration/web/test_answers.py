"""What an answer over HTTP costs and shows: one statement each, summaries in lists, and what the documentation says, of jobs that ran."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import jsonschema
import pytest
from fastapi import FastAPI
from sqlalchemy import event
from sqlalchemy.engine import Engine, make_url

from benchmarks.edge.rows import put_jobs, put_models
from services.chassis.migrations.migrate import ensure_migrated
from services.chassis.serving.http import API, application
from services.chassis.settings import ServiceSettings
from services.cli.serve import build, settings_of
from services.orchestrator.views import JobSummary
from services.registry.views import VersionSummary

JOB = "job-000002"
_END_OTHERS = """SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid()"""
_MANY = """INSERT INTO projection.model (key, state, named)
           VALUES ('many', '{"count": 2, "highest": "1.10.0", "newest": ["1.2.0", "1.10.0"], "aliases": {"prod": "1.2.0", "1.2.0": "1.10.0"}}',
                   '{"1.2.0": ["prod"], "1.10.0": ["1.2.0"]}');
           INSERT INTO projection.registration (key, model, version, registered_at, state)
           SELECT 'many/' || number, 'many', number, now(), jsonb_set(state, '{registered,version}', to_jsonb(number))
           FROM projection.registration, unnest(ARRAY['1.2.0', '1.10.0']) AS number WHERE model = 'model-000000'"""
_ASKED_BY = """UPDATE projection.job SET requester = $2, state = jsonb_set(jsonb_set(
               state, '{accepted,request,requester}', $3), '{wish,request,requester}', $3) WHERE key = $1"""
_MEASURED = """UPDATE projection.registration SET requester = $2, state = jsonb_set(jsonb_set(
               state, '{registered,lineage,requester}', $3), '{registered,metrics}', $4) WHERE model = $1"""
ODD = "a \"b\" \\c\\u0000 / \x01\x1f\x7f\x85\u2028\ufeff\ufffe\U0001f600 'd' {e}, \t\r\n <f> % $1"
NUMBERS = {ODD: None, "": 1e308, "least": 5e-324, "none": 0.0, "whole": 2.0, "long": 0.1 + 0.2, "below": -1e-7}
READS = ("/training", f"/training/{JOB}", f"/training/{JOB}/progress", "/models", "/models/model-000002",
         "/models/model-000002@1.0.0", "/models/model-000002@candidate", "/models/model-000002/aliases")  # fmt: skip


@dataclass(frozen=True)
class Door:
    """Where services answer, and the databases that they answer from."""

    app: FastAPI
    urls: dict[str, str]


@pytest.fixture(scope="module")
async def door(database_url: str) -> Door:
    """Orchestrator and registry with three jobs and three versions; they answer, and do nothing else."""
    services, urls = [], {}
    for name in ("orchestrator", "registry"):
        url = make_url(database_url).set(database=f"{name}_{uuid4().hex[:8]}").render_as_string(hide_password=False)
        urls[name] = url
        settings: ServiceSettings = settings_of(name, **{f"{name}_database_url": url})
        services.append(build(name, settings))
        await ensure_migrated(settings, name)
        services[-1].health.report("migrated", True)
        await (put_jobs if name == "orchestrator" else put_models)(url, 3)
    return Door(application(services), urls)


@pytest.fixture
async def client(door: Door) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(door.app)
    async with httpx2.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:8001{API}") as client:
        yield client


@contextmanager
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is sent to PostgreSQL while the block runs, over SQLAlchemy or without it; a session that is opened is no statement."""
    sent: list[str] = []
    fetch = asyncpg.Connection.fetch

    async def noted(connection: Any, query: str, *arguments: Any, **named: Any) -> Any:
        sent.append(query)
        return await fetch(connection, query, *arguments, **named)

    def through_an_engine(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(Engine, "before_cursor_execute", through_an_engine)
    with monkeypatch.context() as patched:
        patched.setattr(asyncpg.Connection, "fetch", noted)
        try:
            yield sent
        finally:
            event.remove(Engine, "before_cursor_execute", through_an_engine)


@pytest.mark.parametrize("path", READS)
async def test_an_answer_is_one_statement(client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    with statements(monkeypatch) as sent:
        for _ in range(2):
            answer = await client.get(path)
            assert answer.status_code == 200, answer.text
    assert len(sent) == 2, sent


@pytest.mark.parametrize("path", READS)
async def test_an_answer_is_what_is_documented(door: Door, client: httpx2.AsyncClient, path: str) -> None:
    document = door.app.openapi()
    answered = (await client.get(path)).json()
    templates = [
        known for known, operations in document["paths"].items() if "get" in operations and _is_of(API + path, known)
    ]
    (template,) = [one for one in templates if one == API + path] or templates
    schema = document["paths"][template]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(answered)


def _is_of(path: str, template: str) -> bool:
    parts, wanted = path.split("/"), template.split("/")
    return len(parts) == len(wanted) and all(w.startswith("{") or w == p for p, w in zip(parts, wanted, strict=True))


async def test_lists_have_summaries_that_say_what_the_details_say(client: httpx2.AsyncClient) -> None:
    jobs = (await client.get("/training")).json()["items"]
    assert [job["job_id"] for job in jobs] == ["job-000002", "job-000001", "job-000000"]
    for job in jobs:
        detail = (await client.get(f"/training/{job['job_id']}")).json()
        detail |= {"steps": len(detail["steps"]), "steps_done": len(detail["steps"])}
        assert job == {name: detail[name] for name in JobSummary.model_fields}
    versions = (await client.get("/models")).json()["items"]
    assert len(versions) == 3
    for version in versions:
        detail = (await client.get(f"/models/{version['id']}")).json()
        told = {**detail, **detail["lineage"]}
        assert version == {name: told[name] for name in VersionSummary.model_fields}
        assert version["aliases"] == ["candidate"]


async def test_whatever_a_text_or_a_number_is_a_list_says_it_as_the_detail_does(
    client: httpx2.AsyncClient, door: Door
) -> None:
    requester, metrics = json.dumps(ODD), json.dumps(NUMBERS)
    jobs, versions = await asyncpg.connect(door.urls["orchestrator"]), await asyncpg.connect(door.urls["registry"])
    try:
        await jobs.execute(_ASKED_BY, "job-000000", ODD, requester)
        await versions.execute(_MEASURED, "model-000000", ODD, requester, metrics)
    finally:
        await jobs.close()
        await versions.close()
    for path, name, item in (("/training", "job_id", "job-000000"), ("/models", "id", "model-000000@1.0.0")):
        (told,) = (await client.get(path, params={"requester": ODD})).json()["items"]
        assert (told[name], told["requester"]) == (item, ODD)
    detail = (await client.get("/training/job-000000")).json()
    assert detail["requester"] == detail["request"]["requester"] == ODD
    detail = (await client.get("/models/model-000000")).json()
    assert detail["metrics"] == NUMBERS
    written_out = {name: number if number is None else float(number) for name, number in told["metrics"].items()}
    assert written_out == NUMBERS  # PostgreSQL writes 1e308 with all its digits
    assert detail["lineage"]["requester"] == ODD


async def test_pages_follow_each_other_to_the_end(client: httpx2.AsyncClient) -> None:
    for path, name in (("/training", "job_id"), ("/models", "id")):
        whole = (await client.get(path)).json()
        assert whole["next"] is None
        found, query = [], {"limit": "1"}
        while True:
            page = (await client.get(path, params=query)).json()
            found += page["items"]
            if page["next"] is None:
                break
            query["cursor"] = page["next"]
        assert found == whole["items"], name
        assert (await client.get(path, params={**query, "requester": "another"})).status_code == 422
        assert (await client.get(path, params={"requester": "nobody"})).json() == {"items": [], "next": None}


async def test_a_session_that_died_is_replaced_and_nobody_notices(client: httpx2.AsyncClient, door: Door) -> None:
    assert (await client.get("/training")).status_code == 200
    connection = await asyncpg.connect(door.urls["orchestrator"])
    try:
        assert await connection.fetchval(_END_OTHERS) > 0
        assert (await client.get("/training")).status_code == 200
    finally:
        await connection.close()


async def test_many_at_once_wait_for_a_session_and_are_all_answered(client: httpx2.AsyncClient) -> None:
    answers = await asyncio.gather(*(client.get(f"/training?limit={number}") for number in range(1, 41)))
    assert {answer.status_code for answer in answers} == {200}
    assert [len(json.loads(answer.text)["items"]) for answer in answers[:4]] == [1, 2, 3, 3]


async def test_a_name_alone_is_the_highest_version_and_a_version_wins_over_an_alias_of_its_name(
    client: httpx2.AsyncClient, door: Door
) -> None:
    connection = await asyncpg.connect(door.urls["registry"])
    try:
        await connection.execute(_MANY)
        wanted = {"": "1.10.0", "@1.2.0": "1.2.0", "@prod": "1.2.0"}
        for name, version in wanted.items():
            assert (await client.get(f"/models/many{name}")).json()["version"] == version, name
        refused = await client.get("/models/many@nothing")
        assert refused.status_code == 404
        assert "it has 1.2.0, 1.10.0, 1.2.0, prod" in refused.json()["detail"]
        (listed,) = (await client.get("/models?name=many&alias=prod")).json()["items"]
        assert (listed["version"], listed["aliases"]) == ("1.2.0", ["prod"])
    finally:
        await connection.execute("DELETE FROM projection.registration WHERE model = 'many'")
        await connection.close()
