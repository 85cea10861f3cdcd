"""Other services ask judges over HTTP: a judge stays ready, and one that is refused, slow, busy or dead says so in words."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.integration.feedback.endpoint import Chat, says
from tests.judging import Judging, judging
from tests.toy import until

POLITE = {"principle": "polite", "rules": [{"name": "sorry", "kind": "contains_any", "values": ["sorry"]}]}


def asked(*texts: str, **more: Any) -> dict[str, Any]:
    """Return a request to the rules judge."""
    messages = [{"role": "user", "content": "Where is it?"}]
    given = [{"messages": messages, "text": text} for text in texts]
    return {"judge": {"kind": "rules"}, "rubric": POLITE, "base_model": "base", "texts": given, **more}


def at(chat: Chat) -> dict[str, Any]:
    return {"kind": "openai", "endpoint": chat.url, "model": "judge"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judging]:
    with judging(tmp_path_factory.mktemp("judging"), judge_processes=1) as running:
        yield running


@pytest.fixture
async def http(running: Judging) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=f"{running.address}/api/v1", timeout=60) as client:
        yield client


def pids(running: Judging) -> set[int]:
    return {one._process.pid for one in running.judges._processes.values() if one._process}


async def test_texts_are_scored_and_the_judge_stays_ready(running: Judging, http: httpx2.AsyncClient) -> None:
    first = await http.post("/judgements", json=asked("We are sorry.", "No."))
    assert first.json() == {"judge": "rules", "facts": {"judge": "rules"}, "scores": [1.0, 0.0]}
    ready = pids(running)
    assert (await http.post("/judgements", json=asked())).json()["scores"] == []
    assert pids(running) == ready
    assert len(ready) == 1


async def test_a_judge_at_an_endpoint_grades_and_a_text_without_a_grade_has_none(
    http: httpx2.AsyncClient, chat: Chat
) -> None:
    chat.answer = lambda body: says("4" if "good" in body["messages"][-1]["content"] else "who knows")
    answer = (await http.post("/judgements", json=asked("good", "strange", judge=at(chat)))).json()
    assert answer == {"judge": "openai:judge", "facts": {"judge": "openai:judge"}, "scores": [4.0, None]}


@pytest.mark.parametrize("endpoint", ["ftp://judge/v1", "http://10.0.0.1/v1"], ids=["at its start", "when it is asked"])
async def test_a_judge_that_may_not_be_named_is_refused_by_its_field(http: httpx2.AsyncClient, endpoint: str) -> None:
    hidden = {"kind": "openai", "endpoint": endpoint, "model": "judge"}
    answer = await http.post("/judgements", json=asked("text", judge=hidden))
    assert answer.status_code == 422
    assert answer.json()["reasons"][0]["field"] == "feedback.judge.endpoint"


async def test_a_registered_judge_is_read_from_the_store_of_the_service_only(
    http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    elsewhere = {"uri": str(tmp_path), "sha256": "a" * 64, "size": 1}
    version = {"id": "judge@1.0.0", "adapter": elsewhere}
    asks = asked("text", judge={"reward_model": "judge@candidate"}, registered=version)
    answer = await http.post("/judgements", json=asks)
    assert answer.status_code == 422
    (reason,) = answer.json()["reasons"]
    assert (reason["field"], reason["value"]) == ("feedback.judge.reward_model", "judge@1.0.0")
    assert "is not in the store" in reason["message"]


async def test_a_slow_judge_is_ended_and_the_next_request_starts_another(
    running: Judging, http: httpx2.AsyncClient, chat: Chat
) -> None:
    await http.post("/judgements", json=asked(judge=at(chat)))
    before = pids(running)
    chat.answer = lambda body: says("4", seconds=30)
    slow = await http.post("/judgements", json=asked("text", judge=at(chat), timeout_seconds=0.5))
    assert (slow.status_code, slow.json()["title"]) == (504, "The judge is too slow")
    chat.answer = lambda body: says("4")
    assert (await http.post("/judgements", json=asked("text", judge=at(chat)))).json()["scores"] == [4.0]
    assert not before & pids(running)


async def test_a_judge_whose_process_dies_fails_once(running: Judging, http: httpx2.AsyncClient) -> None:
    await http.post("/judgements", json=asked())
    (pid,) = pids(running)
    os.kill(pid, signal.SIGKILL)
    answer = await http.post("/judgements", json=asked("text"))
    assert answer.status_code == 502
    assert "code -9" in answer.json()["detail"]
    assert (await http.post("/judgements", json=asked("text"))).json()["scores"] == [0.0]


async def test_while_all_processes_are_at_work_another_judge_is_refused(
    running: Judging, http: httpx2.AsyncClient, chat: Chat
) -> None:
    chat.answer = lambda body: says("4", seconds=1)
    working = asyncio.create_task(http.post("/judgements", json=asked("text", judge=at(chat))))
    await until(lambda: bool(chat.asked))
    answer = await http.post("/judgements", json=asked("text"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert (await working).json()["scores"] == [4.0]
    assert (await http.post("/judgements", json=asked("text"))).json()["scores"] == [0.0]


async def test_a_judge_that_nobody_asks_ends(tmp_path: Path) -> None:
    with judging(tmp_path, judge_idle_seconds=0.01) as running:
        async with httpx2.AsyncClient(base_url=f"{running.address}/api/v1", timeout=60) as http:
            assert (await http.post("/judgements", json=asked("text"))).is_success
            await until(lambda: not running.judges._processes)
