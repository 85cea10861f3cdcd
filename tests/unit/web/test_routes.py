"""What every route does alike: known parameters only, HEAD like GET, refusals that say what would do, and no new time series."""

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from pydantic import TypeAdapter

from schemas.steps import SERVICES
from services.chassis.process.metrics import REGISTRY
from services.chassis.serving.http import application
from services.chassis.serving.paging import make_cursor, moment, read_cursor
from services.chassis.serving.problem import OPENAI, Problem
from services.chassis.serving.web.parameters import Cursor
from services.cli.serve import build, settings_of
from services.orchestrator.domain.validation import Examined, RejectedRequest, examine
from tests.json_schemas import lost_bounds
from tests.unit.web.asking import JSON, NOWHERE, all_services, ask, problem

PATHS = all_services().openapi()["paths"]
READS = [path.removeprefix("/api/v1") for path, found in PATHS.items() if "get" in found and not path.startswith(OPENAI)]


def test_the_readme_names_every_route() -> None:
    of_a_service = re.compile(f"(?<=^/)(projections|dead-letters|partitions|logs)/({'|'.join(SERVICES)})(?=/|$)")
    served = {
        method.upper() + " " + of_a_service.sub(r"\1/{service}", path.removeprefix("/api/v1"))
        for path, methods in PATHS.items()
        for method in methods
    }
    named = re.findall(r"`((?:GET|POST|PUT|PATCH|DELETE) /[^`]*)`", Path("README.md").read_text().partition("## HTTP")[2])
    assert sorted(named) == sorted(served)


async def test_a_scanner_makes_no_time_series() -> None:
    async def scan(number: int) -> None:
        await ask(f"M{number}", "/training")
        await ask("GET", f"/{number}")
        await ask("PUT", f"/models/m{number}/aliases/a?x{number}=1", headers={**JSON, "host": f"h{number}.example"})
        await ask("GET", f"/training/{number}", headers={"host": f"h{number}.example"})

    await scan(0)
    before = generate_latest(REGISTRY).count(b"\n")
    for number in range(1, 100):
        await scan(number)
    assert generate_latest(REGISTRY).count(b"\n") == before


@pytest.mark.parametrize("path", READS)
async def test_a_parameter_that_a_route_does_not_know_is_refused_and_the_known_are_named(path: str) -> None:
    said = problem(await ask("GET", f"{path.replace('{', '').replace('}', '')}?stauts=failed"), 422)
    assert said["reasons"][0]["field"] == "query.stauts"
    if path == "/training":
        assert said["reasons"][0]["remedy"] == "did you mean status? known are limit, cursor, status, requester, model"


@pytest.mark.parametrize(
    ("content", "headers", "status", "field"),
    [
        (b'{"model": "m", "messages": []}', JSON, 422, "messages"),
        (b'{"messages": [{"role": "user"}]}', JSON, 422, "model"),
        (b'{"model": "a b", "messages": [{"role": "user"}]}', JSON, 422, "model"),
        (b'{"model": "m", "model": "n"}', JSON, 422, "model"),
        (b'{"model": "m", "messages": [{}], "stream": "no"}', JSON, 422, "stream"),
        (b"[" * 9, JSON, 422, "(request)"),
        (b"{}", {"content-type": "text/plain"}, 415, None),
        (b" " * 2**20 + b"{}", JSON, 413, None),
    ],
)
async def test_clients_of_openai_get_refusals_in_their_shape(
    content: bytes, headers: dict[str, str], status: int, field: str | None
) -> None:
    answer = await ask("POST", "/v1/chat/completions", content=content, headers=headers, below="")
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", field)
    assert error["message"]


async def test_the_end_of_a_line_hides_no_parameter() -> None:
    """A router takes a path that ends with one for the route."""
    assert "statsu" in problem(await ask("GET", "/training%0A?statsu=running"), 422)["detail"]


async def test_a_parameter_given_twice_is_refused() -> None:
    said = problem(await ask("GET", "/training?limit=1&limit=2"), 422)
    assert said["reasons"][0]["message"] == "the parameter is given twice"


async def test_head_is_answered_like_get() -> None:
    for path in ("/health", "/health/live", "/health/detailed", "/metrics"):
        got, headed = await ask("GET", path), await ask("HEAD", path)
        assert (headed.status_code, headed.content) == (got.status_code, b"")
        assert headed.headers["content-type"] == got.headers["content-type"]
    missing = await ask("HEAD", "/nothing")
    assert (missing.status_code, missing.content) == (404, b"")


async def test_a_method_that_is_not_answered_is_told_which_are() -> None:
    answer = await ask("DELETE", "/training")
    said = problem(answer, 405)
    assert answer.headers["allow"] == "GET, HEAD"
    assert "use GET, HEAD" in said["detail"]
    assert (await ask("POST", "/models/router/aliases/prod")).headers["allow"] == "DELETE, PUT"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/partitions/orchestrator/neuroweaver.jobs/2147483648/step-over"),
        ("POST", "/partitions/orchestrator/neuroweaver.jobs/-1/step-over"),
        ("POST", f"/partitions/orchestrator/neuroweaver.jobs/{'9' * 5000}/step-over"),
        ("POST", "/partitions/orchestrator/a%00b/0/step-over"),
        ("POST", f"/partitions/orchestrator/{'t' * 300}/0/step-over"),
        ("GET", "/dead-letters/orchestrator/neuroweaver.jobs/2147483648/0"),
        ("GET", "/dead-letters/orchestrator/neuroweaver.jobs/0/9223372036854775808"),
        ("GET", "/dead-letters/orchestrator?since=0001-01-01T00:00:00%2B14:00"),
        ("GET", "/dead-letters/orchestrator?until=9999-12-31T23:59:59-14:00"),
        ("GET", "/dead-letters/orchestrator?until=0.5"),
        ("GET", "/dead-letters/orchestrator?since=1700000000"),
        ("GET", "/dead-letters/orchestrator?key=%00"),
        ("GET", "/dead-letters/orchestrator?after=neuroweaver.jobs:0:9223372036854775808"),
        ("GET", "/dead-letters/orchestrator?limit=99999999999999999999"),
        ("GET", "/training?limit=99999999999999999999"),
        ("GET", "/training?requester=%00"),
        ("GET", "/training/a%00b"),
        ("GET", "/training/a%00b/events"),
        ("GET", "/models/a%00b"),
        ("GET", "/models?job_id=%00"),
        ("GET", "/models/%2e%2e"),
        ("GET", "/models/%2e/aliases"),
        ("PUT", "/models/m/aliases/%2e%2e"),
        ("PUT", "/models/%2e%2e/aliases/a"),
        ("GET", "/feedback/%2e%2e"),
        ("GET", "/training/%2e%2e"),
        ("POST", "/training/%2e/cancel"),
    ],
)
async def test_what_no_database_could_be_asked_is_refused_before_one_is_asked(method: str, path: str) -> None:
    body = {"version": "1.0.0"} if "/models" in path else {"reason": "x", "by": "y"}
    given: dict[str, Any] = {"content": str(body).replace("'", '"').encode(), "headers": JSON} if method != "GET" else {}
    if path.endswith("/cancel"):
        given = {}
    problem(await ask(method, path, **given), 422)


async def test_many_requests_at_once_are_all_answered() -> None:
    answers = await asyncio.gather(*(ask("GET", "/health") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}


def test_bounds_of_numbers_are_in_the_document() -> None:
    assert lost_bounds(all_services().openapi()) == []


def test_every_refusal_is_documented_as_what_it_is() -> None:
    document = all_services().openapi()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            refusals = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
            assert {"421", "422", "500", "503"} <= refusals.keys()
            assert method == "get" or {"403", "413", "415"} <= refusals.keys()
            for status, answer in refusals.items():
                plain = path.startswith(OPENAI) or (status, path[7:14]) == ("503", "/health")
                kinds = ["application/json" if plain else "application/problem+json"]
                assert list(answer["content"]) == kinds or path.endswith(("/health", "/health/detailed")), (path, status)
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_a_cursor_may_be_as_long_as_the_longest_key_makes_it_and_holds_nothing_that_no_database_keeps() -> None:
    query = {"status": None}
    cursor = make_cursor(query, ["2026-01-01T00:00:00+00:00", "\N{GRINNING FACE}" * 256])
    TypeAdapter(Cursor).validate_python(cursor)
    assert read_cursor(cursor, query, (moment, str))[1] == "\N{GRINNING FACE}" * 256
    for at, key in (
        ("0001-01-01T00:00:00+14:00", "a"),
        ("9999-12-31T23:59:59-01:00", "a"),
        ("2026-01-01T00:00:00+00:00", "\ud800"),
    ):
        with pytest.raises(Problem, match="not a cursor of this list"):
            read_cursor(make_cursor(query, [at, key]), query, (moment, str))


def test_true_is_no_number_of_a_request() -> None:
    whole = {"job_id": "j", "requester": "r", "base_model": "b", "dataset": {"reference": "d"}, "register_as": "m"}
    parts: dict[str, dict[str, Any]] = {
        "training.optimiser.steps": {"training": {"optimiser": {"steps": True}}},
        "training.optimiser.learning_rate": {"training": {"optimiser": {"learning_rate": True}}},
        "sampling.n": {"sampling": {"n": True}},
        "priority": {"priority": False},
    }
    for field, part in parts.items():
        examined = examine({**whole, **part}, (), datetime.now(UTC))
        assert isinstance(examined, RejectedRequest)
        assert [reason.field for reason in examined.reasons] == [field]
        assert "true and false are not numbers" in examined.reasons[0].message
    assert isinstance(examine({**whole, "training": {"optimiser": {"steps": 5}}}, (), datetime.now(UTC)), Examined)


async def test_what_is_asked_of_a_service_that_is_starting_is_refused_and_health_is_told() -> None:
    services = [build(name, settings_of(name, **NOWHERE)) for name in ("orchestrator", "registry")]
    services[1].health.report("migrated", True)
    app = application(services)
    answer = await ask("GET", "/training", app=app)
    said = problem(answer, 503)
    assert said["detail"].startswith("orchestrator is starting, its database is not migrated")
    assert answer.headers["retry-after"] == "2"
    problem(await ask("POST", "/training/a/cancel", app=app, headers=JSON), 503)
    problem(await ask("GET", "/projections/orchestrator", app=app), 503)
    assert (await ask("GET", "/health", app=app)).json()["services"] == dict.fromkeys(
        ("orchestrator", "registry"), "not ready"
    )
    assert problem(await ask("GET", "/models/none", app=app), 503)["detail"].startswith("the database or the broker")
    services[0].health.report("migrated", True)
    assert problem(await ask("GET", "/training", app=app), 503)["detail"].startswith("the database or the broker")


async def test_a_list_refuses_what_a_parameter_cannot_be_and_names_it() -> None:
    said = problem(await ask("GET", "/training?limit=0&status=nothing"), 422)
    assert {reason["field"] for reason in said["reasons"]} == {"query.limit", "query.status"}
    said = problem(await ask("GET", "/models?name=a%20b"), 422)
    assert [(reason["field"], reason["value"]) for reason in said["reasons"]] == [("query.name", "'a b'")]
