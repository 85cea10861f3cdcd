"""`neuroweaver partitions` as a process beside an orchestrator, and what its HTTP edge says while it does not read its log."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.topics import REQUESTS
from services.chassis.kernel.log import bounds
from tests.command import Ended, run
from tests.orchestrator import Orchestrator
from tests.toy import until

PARTITION = 5


async def partitions(orchestrator: Orchestrator, *arguments: str, stdin: str = "", command: str = "partitions") -> Ended:
    settings = orchestrator.settings
    address = str(orchestrator.http.base_url).rstrip("/").removesuffix("/api/v1")
    return await run(
        address, command, *arguments, stdin=stdin, NEUROWEAVER_KAFKA_BOOTSTRAP=settings.kafka_bootstrap,
        NEUROWEAVER_DATABASE_URL=settings.database_url, NEUROWEAVER_HOME=str(settings.home),
        NEUROWEAVER_ORCHESTRATOR_DATABASE_URL=str(settings.orchestrator_database_url),
    )  # fmt: skip


def engine_of(orchestrator: Orchestrator) -> AsyncEngine:
    assert orchestrator.runtime is not None
    return orchestrator.runtime.engine


async def execute(orchestrator: Orchestrator, statement: str) -> None:
    async with engine_of(orchestrator).begin() as connection:
        await connection.execute(text(statement))


async def here(orchestrator: Orchestrator) -> Any:
    listed = (await partitions(orchestrator, "list", "orchestrator", "--json")).json["orchestrator"]
    return next(one for one in listed if (one["topic"], one["partition"]) == (REQUESTS.name, PARTITION))


async def test_what_stands_is_listed_and_goes_on_after_a_yes_and_not_without(orchestrator: Orchestrator) -> None:
    _, end = (await bounds(orchestrator.settings.cluster, [REQUESTS.name]))[REQUESTS.name, PARTITION]
    await until(lambda: position_is(orchestrator, end))
    listed = await partitions(orchestrator, "list", "orchestrator")
    assert listed.code == 0, listed.err
    assert f"requests:{PARTITION}" in listed.out
    place = f"requests:{PARTITION}"
    idle = await partitions(orchestrator, "step-over", "orchestrator", place, "--reason", "a test")
    assert (idle.code, "has not stopped" in idle.err) == (1, True), idle.err
    await execute(
        orchestrator,
        f"UPDATE position SET next_offset = {end + 7} WHERE topic = '{REQUESTS.name}' AND partition = {PARTITION}",
    )
    listed = await partitions(orchestrator, "list", "orchestrator")
    assert listed.code == 1
    assert f"is read up to offset {end + 7} but ends at {end}" in listed.out
    assert ((found := await here(orchestrator))["state"], found["cause"]) == ("stands", "beyond the end")
    no = await partitions(orchestrator, "step-over", "orchestrator", place, "--reason", "a test", stdin="n\n")
    assert (no.code, "Skip this for ever?" in no.err) == (1, True)
    assert (await here(orchestrator))["state"] == "stands"
    yes = await partitions(
        orchestrator, "step-over", "orchestrator", place, "--reason", "a test", "--by", "ada", stdin="y\n"
    )
    assert yes.code == 0, yes.err
    assert f"its partitions continue at offsets {PARTITION}: {end}" in yes.out
    assert (await here(orchestrator))["position"] == end


async def position_is(orchestrator: Orchestrator, end: int) -> bool:
    async with engine_of(orchestrator).connect() as connection:
        found = await connection.scalar(
            text(f"SELECT next_offset FROM position WHERE topic = '{REQUESTS.name}' AND partition = {PARTITION}")
        )
    return bool(found == end)


async def test_no_job_is_started_or_cancelled_while_the_orchestrator_does_not_read_its_log(
    orchestrator: Orchestrator,
) -> None:
    await orchestrator.ask(orchestrator.request("running"))
    await orchestrator.status("running", "running")
    name, request = orchestrator.prefix + "running", orchestrator.request("refused")
    await execute(orchestrator, f"UPDATE log_identity SET topic_id = 'x' || topic_id WHERE topic = '{REQUESTS.name}'")
    await until(lambda: unready(orchestrator))
    for path, body in (("/training/start", request), (f"/training/{name}/cancel", {})):
        answer = await orchestrator.http.post(path, json=body)
        assert answer.status_code == 503
        assert "is another log: topic id x" in answer.json()["detail"]
    over_http = await orchestrator.http.get("/partitions/orchestrator")
    assert {one["cause"] for one in over_http.json()["partitions"] if one["topic"] == REQUESTS.name} == {"another log"}
    doctor = await partitions(orchestrator, "--json", command="doctor")
    assert doctor.out, doctor.err
    (finding,) = [one for one in doctor.json if one["check"] == "partitions"]
    assert (finding["verdict"], "is another log" in finding["detail"]) == ("mend", True)
    await execute(orchestrator, f"UPDATE log_identity SET topic_id = substr(topic_id, 2) WHERE topic = '{REQUESTS.name}'")
    await until(lambda: ready(orchestrator))
    answer = await orchestrator.http.post(
        f"/partitions/orchestrator/{REQUESTS.name}/{PARTITION}/step-over", json={"reason": "a test", "by": "ada"}
    )
    assert (answer.status_code, answer.json()["title"]) == (409, "Nothing to step over")


async def unready(orchestrator: Orchestrator) -> bool:
    return (await orchestrator.http.get("/health/ready")).status_code == 503


async def ready(orchestrator: Orchestrator) -> bool:
    return (await orchestrator.http.get("/health/ready")).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("step-over", "orchestrator", "requests", "--reason", "x"), 2, "TOPIC:PARTITION, such as requests:3"),
        (("step-over", "orchestrator", "requests:3", "--reason", " "), 2, "--reason"),
        (("step-over", "nobody", "requests:3", "--reason", "x"), 2, "SERVICE=nobody"),
        (
            ("step-over", "orchestrator", "requests:99", "--reason", "x"),
            1,
            "orchestrator does not read neuroweaver.requests:99",
        ),
        (("list", "nobody"), 2, "SERVICE=nobody"),
    ],
)
async def test_what_is_not_valid_is_said_with_the_exit_code_that_it_has(
    orchestrator: Orchestrator, arguments: tuple[str, ...], code: int, says: str
) -> None:
    ended = await partitions(orchestrator, *arguments)
    assert (ended.code, says in ended.err) == (code, True), ended.err


async def test_a_check_of_the_topics_fails_when_anything_differs(orchestrator: Orchestrator) -> None:
    same = await partitions(orchestrator, "plan", "--check", command="topics")
    assert (same.code, "as the catalogue says" in same.out) == (0, True)
