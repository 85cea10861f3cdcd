"""Who waits for a worker, over HTTP and on a terminal: `GET /api/v1/queue` and `neuroweaver queue`."""

import re
from pathlib import Path
from typing import Any

from tests.command import Ended, run
from tests.orchestrator import Orchestrator
from tests.toy import until


async def queue(orchestrator: Orchestrator, *arguments: str) -> Ended:
    return await run(str(orchestrator.http.base_url).removesuffix("/api/v1/"), "queue", *arguments)


async def test_the_queue_shows_what_runs_and_who_waits_in_which_order(
    kafka: str, database_url: str, tmp_path: Path
) -> None:
    async with Orchestrator(kafka, database_url, tmp_path).running() as orchestrator:
        empty = await queue(orchestrator)
        assert (empty.code, empty.out) == (0, "No step runs and none waits for a worker.\n")

        jobs: dict[str, dict[str, Any]] = {
            "done": {}, "a0": {}, "a1": {}, "b0": {"requester": "b"}, "urgent": {"priority": 5}
        }  # fmt: skip
        for name, fields in jobs.items():
            await orchestrator.ask(orchestrator.request(name, **fields))
            await orchestrator.status(name, "running")
        job_ids = {name: orchestrator.prefix + name for name in jobs}
        await orchestrator.start(job_ids["done"], "prepare")
        await orchestrator.complete(job_ids["done"], "prepare", "train", "register")
        await orchestrator.status("done", "completed")
        await orchestrator.start(job_ids["a0"], "prepare")

        async def shown() -> dict[str, list[dict[str, object]]]:
            found: dict[str, list[dict[str, object]]] = (await orchestrator.http.get("/queue")).json()
            return found

        async def starts() -> bool:
            return bool((await shown())["running"])

        await until(starts)
        view = await shown()
        assert [one["job_id"] for one in view["running"]] == [job_ids["a0"]]
        assert view["running"][0]["worker"] == "host:1"
        assert [one["job_id"] for one in view["waiting"]] == [job_ids[name] for name in ("urgent", "b0", "a1")]
        assert [(one["place"], one["executor"]) for one in view["waiting"]] == [
            (1, "trainer"), (2, "trainer"), (3, "trainer"),
        ]  # fmt: skip
        assert all(one["expected_start"] for one in view["waiting"])
        assert (await orchestrator.http.get("/queue", params={"limit": 1})).json()["waiting_total"] == 3
        assert (await orchestrator.http.get("/queue", params={"limit": 0})).status_code == 422

        piped = await queue(orchestrator)
        lines = [line.split("\t") for line in piped.out.splitlines()]
        assert lines[0] == ["#", "job", "step", "state", "waits", "priority", "requester", "executor"]
        assert [(line[0], line[1]) for line in lines[1:]] == [
            ("", job_ids["a0"]), ("1", job_ids["urgent"]), ("2", job_ids["b0"]), ("3", job_ids["a1"]),
        ]  # fmt: skip
        assert re.match(r"runs, ends (now|in )", lines[1][3])
        assert re.match(r"starts (now|in )", lines[2][3])
        assert (await queue(orchestrator, "--json")).json["waiting"][0]["job_id"] == job_ids["urgent"]
