"""What people and programs meet at the edge: problems with remedies, pages, progress, and a stream that can be resumed."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from schemas.progress import StepProgressed
from schemas.topics import PROGRESS, REQUESTS
from tests.orchestrator import Orchestrator, sse
from tests.toy import until


async def stream(orchestrator: Orchestrator, job_id: str, last: str | None = None) -> AsyncIterator[dict[str, Any]]:
    headers = {"Last-Event-ID": last} if last else {}
    async with orchestrator.http.stream("GET", f"/training/{job_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines: list[str] = []
        async for line in answer.aiter_lines():
            if line:
                lines.append(line)
            elif event := sse(lines):
                yield event
                lines = []


async def refused(orchestrator: Orchestrator, method: str, path: str, **fields: Any) -> dict[str, Any]:
    answer = await orchestrator.http.request(method, path, **fields)
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == answer.status_code
    return problem


async def test_an_id_is_made_where_none_is_given(orchestrator: Orchestrator) -> None:
    request = orchestrator.request("x", requester=orchestrator.prefix)
    del request["job_id"]
    answer = await orchestrator.http.post("/training/start", json=request)
    assert answer.status_code == 202
    assert len(answer.json()["job_id"]) == 36
    assert answer.json()["status"] == "requested"  # this orchestrator minds only jobs of its own prefix


async def test_the_callers_trace_goes_on_in_the_events(orchestrator: Orchestrator) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    await orchestrator.http.post("/training/start", json=orchestrator.request("traced"), headers=headers)
    await orchestrator.status("traced", "running")
    job_id = orchestrator.prefix + "traced"
    events = [e for topic in (REQUESTS.name, "neuroweaver.jobs") for e in await orchestrator.log(topic)]
    traces = {event.traceparent.split("-")[1] for event in events if event.correlation_id == job_id}
    assert traces == {trace}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"no json", 422), (b"[]", 422), (b'{"job_id": 5}', 422), (b'{"job_id": ""}', 422), (b'{"a": NaN}', 422),
        (b"[" * 100_000, 422), (b'{"a": "' + b"x" * 600_000 + b'"}', 413), (b"{}", 422),
    ],
)  # fmt: skip
async def test_a_body_that_is_no_request_is_a_problem(orchestrator: Orchestrator, body: bytes, status: int) -> None:
    headers = {"content-type": "application/json"}
    problem = await refused(orchestrator, "POST", "/training/start", content=body, headers=headers)
    assert problem["status"] == status


async def test_a_form_of_a_foreign_web_page_starts_nothing(orchestrator: Orchestrator) -> None:
    headers = {"content-type": "text/plain"}
    problem = await refused(orchestrator, "POST", "/training/start", content=b"{}", headers=headers)
    assert problem["status"] == 415


async def test_a_job_nobody_requested_is_404_everywhere(orchestrator: Orchestrator) -> None:
    for method, path in [("GET", ""), ("GET", "/progress"), ("GET", "/events"), ("POST", "/cancel")]:
        problem = await refused(orchestrator, method, f"/training/nobody{path}")
        assert problem["status"] == 404
    assert (await refused(orchestrator, "GET", "/training/a%00b"))["status"] == 422


async def test_an_ended_job_cannot_be_cancelled(orchestrator: Orchestrator) -> None:
    await orchestrator.ask(orchestrator.request("ended", pipeline="magic"))
    await orchestrator.status("ended", "rejected")
    problem = await refused(orchestrator, "POST", f"/training/{orchestrator.prefix}ended/cancel")
    assert problem["status"] == 409
    assert "rejected" in problem["detail"]


async def test_a_cancel_without_a_body_names_nobody(orchestrator: Orchestrator) -> None:
    await orchestrator.ask(orchestrator.request("plain-cancel"))
    await orchestrator.status("plain-cancel", "running")
    answer = await orchestrator.http.post(f"/training/{orchestrator.prefix}plain-cancel/cancel")
    assert answer.status_code == 202
    assert answer.json()["cancel"]["requester"] == "unknown"


async def test_pages_hold_every_job_once_newest_first_and_cursors_belong_to_one_query(orchestrator: Orchestrator) -> None:
    requester = orchestrator.prefix + "lister"
    names = [f"page-{number}" for number in range(7)]
    for name in names:
        await orchestrator.ask(orchestrator.request(name, requester=requester, register_as=f"m{len(name) % 2}"))
    for name in names:
        await orchestrator.status(name, "running")
    seen: list[str] = []
    query: dict[str, Any] = {"requester": requester, "limit": 3}
    while True:
        page = (await orchestrator.http.get("/training", params=query)).json()
        seen += [job["job_id"].removeprefix(orchestrator.prefix) for job in page["items"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
    assert seen == names[::-1]
    problem = await refused(orchestrator, "GET", "/training", params={"limit": 3, "cursor": query["cursor"]})
    assert problem["reasons"][0]["field"] == "cursor"
    for broken in ("x", "e30", "bnVsbA", "WyJhIl0", "A" * 250):
        assert (await refused(orchestrator, "GET", "/training", params={"cursor": broken}))["status"] == 422


async def test_lists_are_filtered(orchestrator: Orchestrator) -> None:
    requester = orchestrator.prefix + "filter"
    await orchestrator.ask(orchestrator.request("f-good", requester=requester, register_as="a"))
    await orchestrator.ask(orchestrator.request("f-bad", requester=requester, register_as="b", pipeline="magic"))
    await orchestrator.status("f-good", "running")
    await orchestrator.status("f-bad", "rejected")

    async def listed(**query: str) -> list[str]:
        page = (await orchestrator.http.get("/training", params={"requester": requester, **query})).json()
        return [job["job_id"].removeprefix(orchestrator.prefix) for job in page["items"]]

    assert await listed() == ["f-bad", "f-good"]
    assert await listed(status="rejected") == ["f-bad"]
    assert await listed(model="a") == ["f-good"]
    assert await listed(model="a", status="rejected") == []
    assert (await refused(orchestrator, "GET", "/training", params={"status": "lost"}))["reasons"][0][
        "field"
    ] == "query.status"


async def test_progress_is_the_latest_of_each_step_and_never_goes_back(orchestrator: Orchestrator) -> None:
    job_id = orchestrator.prefix + "progress"
    await orchestrator.ask(orchestrator.request("progress"))
    await until(lambda: orchestrator.asked(job_id, "prepare"))
    for done in (1, 2, 3):
        await orchestrator.say(StepProgressed, job_id, "prepare", done=done, of=9, unit="rows")
    await until(lambda: _done(orchestrator, job_id, 3))
    late = next(event for event in await orchestrator.log(PROGRESS.name) if event.data.done == 1)  # type: ignore[attr-defined]
    await orchestrator.publish(late)
    await orchestrator.say(StepProgressed, job_id, "train", done=1, of=5, loss=0.5)
    await until(lambda: _done(orchestrator, job_id, 3))
    progress = (await orchestrator.http.get(f"/training/{job_id}/progress")).json()
    assert (progress["status"], progress["steps_done"], progress["steps_of"]) == ("running", 0, 3)
    prepare, train, _ = progress["steps"]
    assert (prepare["done"], prepare["of"], prepare["unit"], prepare["attempt"]) == (3, 9, "rows", 1)
    assert (train["status"], train["attempt"], train["done"]) == ("waiting", 0, None)


async def test_a_stream_tells_the_job_as_it_changes_and_ends_with_it(orchestrator: Orchestrator) -> None:
    job_id = orchestrator.prefix + "watched"
    await orchestrator.ask(orchestrator.request("watched"))
    await orchestrator.status("watched", "running")
    events: list[dict[str, Any]] = []

    async def watch() -> None:
        async for event in stream(orchestrator, job_id):
            events.append(event)  # noqa: PERF401 (seen while it runs)

    watching = asyncio.create_task(watch())
    await until(lambda: events)
    await orchestrator.say(StepProgressed, job_id, "prepare", done=1, of=2)
    await until(lambda: any(event["event"] == "progress" for event in events))
    await orchestrator.complete(job_id, "prepare", "train", "register")
    await asyncio.wait_for(watching, 120)
    jobs = [event for event in events if event["event"] == "job"]
    assert jobs[0]["data"]["status"] == "running"
    assert jobs[-1]["data"]["status"] == "completed"
    assert len({event["id"] for event in jobs}) == len(jobs)
    assert events[-1] == {"event": "end", "data": {"status": "completed"}}
    progress = next(event for event in events if event["event"] == "progress")
    assert (progress["data"]["step"], progress["data"]["done"]) == ("prepare", 1)

    resumed = [event async for event in stream(orchestrator, job_id, last=jobs[-1]["id"])]
    assert [event["event"] for event in resumed if event["event"] != "progress"] == ["end"]
    behind = [event async for event in stream(orchestrator, job_id, last=jobs[0]["id"])]
    assert behind[0] == jobs[-1]


async def test_a_reader_that_goes_away_leaves_no_open_transaction_behind(orchestrator: Orchestrator) -> None:
    job_id = orchestrator.prefix + "left"
    await orchestrator.ask(orchestrator.request("left"))
    await orchestrator.status("left", "running")
    for _ in range(10):
        async for event in stream(orchestrator, job_id):
            assert event["event"] == "job"
            break
    assert orchestrator.runtime
    pool = orchestrator.runtime.engine.pool

    async def idle() -> bool:
        return pool.checkedout() <= 1  # type: ignore[attr-defined, no-any-return]

    await until(idle, what=pool.status)


async def test_a_broker_that_is_away_is_503_with_a_time_to_come_back(database_url: str, tmp_path: Path) -> None:
    away = Orchestrator("127.0.0.1:1", database_url, tmp_path)
    async with away.running(ready=False) as orchestrator:
        await until(lambda: _answers(orchestrator))
        answer = await orchestrator.http.post("/training/start", json=orchestrator.request("away"))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert orchestrator.prefix + "away" in answer.json()["detail"]
        invalid = await orchestrator.http.post("/training/start", json=orchestrator.request("away", pipeline="magic"))
        assert invalid.status_code == 422


async def test_docs_describe_the_request_and_every_schema_that_is_named_exists(orchestrator: Orchestrator) -> None:
    root = str(orchestrator.http.base_url).removesuffix("/api/v1/")
    document = (await orchestrator.http.get(f"{root}/openapi.json")).json()
    schemas = document["components"]["schemas"]
    start = document["paths"]["/api/v1/training/start"]["post"]
    assert start["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2] in schemas
    assert schemas["JobRequest"]["properties"]["deadline"]["description"]
    missing = {ref for ref in _refs(document) if ref.rpartition("/")[2] not in schemas}
    assert missing == set()


def _refs(value: Any) -> set[str]:
    match value:
        case dict():
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*(_refs(item) for item in value.values()))
        case list():
            return set().union(*(_refs(item) for item in value))
    return set()


async def _done(orchestrator: Orchestrator, job_id: str, done: int) -> bool:
    progress = (await orchestrator.http.get(f"/training/{job_id}/progress")).json()
    return bool(progress["steps"] and progress["steps"][0]["done"] == done)


async def _answers(orchestrator: Orchestrator) -> bool:
    """While its database is not migrated it says so, and nothing worse."""
    status = (await orchestrator.http.get("/training")).status_code
    assert status in (200, 503)
    return status == 200
