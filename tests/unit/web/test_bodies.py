"""One body does not stop everything: it is bounded before it is read, and so is what is said about it."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import FastAPI, Response
from starlette.types import Receive, Scope, Send

from schemas import judgements
from schemas.envelope import REQUEST_BYTES
from services.chassis.serving.web import offloading
from services.chassis.serving.web.body import BODY_BYTES, RequestBodies
from tests.unit.web.asking import JSON, all_services, ask, problem

LIMITS = {"/training/start": REQUEST_BYTES, judgements.JUDGEMENTS: judgements.REQUEST_BYTES}
"""Limits of routes that set their own."""
WRITES = [
    (method.upper(), path.removeprefix("/api/v1").replace("{", "").replace("}", ""))
    for path, operations in all_services().openapi()["paths"].items()
    for method in operations
    if method in ("post", "put", "delete")
]


async def chunks(size: int) -> AsyncIterator[bytes]:
    while size > 0:
        yield b'"' + b"x" * 9_999
        size -= 10_000


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_a_body_over_the_limit_is_refused_with_the_limit_and_what_to_do_whether_its_length_is_said_or_not(
    method: str, path: str
) -> None:
    limit = LIMITS.get(path, BODY_BYTES)
    for content in (b"{" + b" " * limit, chunks(limit + 1)):
        said = problem(await ask(method, path, content=content, headers=JSON), 413)["detail"]
        assert str(limit) in said
        assert "refer to data" in said


async def test_a_body_that_announces_more_than_it_may_is_refused_before_any_of_it_is_read() -> None:
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("somebody read it")
        yield b""

    headers = {**JSON, "content-length": "36000000"}
    problem(await ask("POST", "/training/x/cancel", content=unread(), headers=headers), 413)


async def test_two_thousand_unknown_fields_are_answered_with_twenty_reasons_and_their_number() -> None:
    body = json.dumps({f"{number:x}": "y" for number in range(2000)}).encode()
    answer = await ask("PUT", "/models/m/aliases/a", content=body, headers=JSON)
    said = problem(answer, 422)
    assert len(said["reasons"]) == 20
    assert said["reasons_left_out"] == 2001 - 20  # and `version` is missing
    assert said["detail"].endswith("; and 1981 more")
    assert len(answer.content) < 20_000


async def test_a_long_name_or_value_is_shortened_wherever_it_is_repeated() -> None:
    long = "n" * 10_000
    for body in ({long: 1}, {"version": long}, {"version": {long: long}}):
        answer = await ask("PUT", "/models/m/aliases/a", content=json.dumps(body).encode(), headers=JSON)
        problem(answer, 422)
        assert len(answer.content) < 4_000
    for path in (f"/{long}", f"/training/{long}", f"/training?{long}={long}", f"/models?cursor={long}"):
        answer = await ask("GET", path)
        assert answer.status_code in (404, 422)
        assert len(answer.content) < 6_000
    assert len((await ask("X" * 10_000, "/training", headers=JSON)).content) < 4_000


async def test_a_request_of_the_largest_size_with_nothing_but_faults_gets_a_small_answer() -> None:
    body = b"{" + b",".join(b'"%x":1' % number for number in range(48_000)) + b"}"
    assert len(body) < REQUEST_BYTES
    answer = await ask("POST", "/training/start", content=body, headers=JSON)
    if answer.status_code != 503:  # the database is asked for the time first
        problem(answer, 422)
    assert len(answer.content) < 100_000


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"version": "1", "version": "2"}', "given twice"),
        (b'{"a": {"version": "1", "version": "2"}}', "given twice"),
        (b'{"version": "1\\u0000"}', "NUL"),
        (b'{"version": "\\ud800"}', "surrogate"),
        (b'{"\\ud800": "1"}', "surrogate"),
        (b'{"version": "\xed\xa0\x80"}', "surrogate"),
        (b'{"version": NaN}', "not valid JSON"),
        (b'{"version": 1e999}', "not valid JSON"),
        (b'{"version": ' + b"[" * 65 + b"]" * 65 + b"}", "64 levels"),
        (b"[" * 30_000, "flatter"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
    ],
)
async def test_json_that_two_readers_could_take_differently_is_refused_in_words_by_every_route(
    body: bytes, words: str
) -> None:
    for method, path in WRITES:
        said = problem(await ask(method, path, content=body, headers=JSON), 422)
        assert words in said["detail"]


async def test_what_is_large_is_read_beside_the_loop_and_what_it_raises_is_raised_here() -> None:
    seen: list[str] = []

    def read(fails: bool) -> None:
        seen.append(threading.current_thread().name)
        if fails:
            raise ValueError("no")

    await offloading.in_thread_if_large(offloading.LOOP_BYTES, read, False)
    with pytest.raises(ValueError, match="no"):
        await offloading.in_thread_if_large(offloading.LOOP_BYTES + 1, read, True)
    assert seen[0] == "MainThread"
    assert seen[1].startswith("large-bodies")


async def test_large_bodies_are_held_up_to_a_limit_and_small_ones_always() -> None:
    """However many callers wait for a judge, or keep back their last byte."""
    working, goes_on, held = list[int](), asyncio.Event(), list[asyncio.Task[httpx2.Response]]()
    large = b'"' + b"x" * BODY_BYTES + b'"'

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        working.append(len((await receive())["body"]))
        await goes_on.wait()
        await Response()(scope, receive, send)

    app = FastAPI()
    app.mount("/", work)
    app.add_middleware(RequestBodies, limits={"/held": len(large)}, together=4 * len(large))

    async def unfinished() -> AsyncIterator[bytes]:
        yield large[:-1]
        await goes_on.wait()
        yield large[-1:]

    for content in (large, large, large, unfinished()):
        held.append(asyncio.ensure_future(ask("POST", "/held", content=content, headers=JSON, app=app, below="")))
    while len(working) < 3:
        await asyncio.sleep(0.01)
    refused = await ask("POST", "/held", content=large, headers=JSON, app=app, below="")
    assert problem(refused, 503)["detail"].startswith("the service holds")
    assert refused.headers["retry-after"]
    held.append(asyncio.ensure_future(ask("POST", "/small", content=b"{}", headers=JSON, app=app, below="")))
    while 2 not in working:
        await asyncio.sleep(0.01)
    goes_on.set()
    assert [(await one).status_code for one in held] == [200] * 5
    assert (await ask("POST", "/held", content=large, headers=JSON, app=app, below="")).status_code == 200
