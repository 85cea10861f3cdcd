"""`neuroweaver dlq` as a process beside an orchestrator whose handling of one job fails; the command's own code is mended."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.command import Ended, run
from tests.orchestrator import Orchestrator
from tests.toy import until


@pytest.fixture(scope="module")
async def orchestrator(
    kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Orchestrator]:
    orchestrator = Orchestrator(kafka, database_url, tmp_path_factory.mktemp("dlq"))
    orchestrator.poison = ("bad", "worse")
    async with orchestrator.running():
        for name in ("bad", "worse", "good"):
            await orchestrator.ask(orchestrator.request(name))
        await orchestrator.status("good", "running")
        await until(lambda: _known(orchestrator, 2))
        yield orchestrator


async def _known(orchestrator: Orchestrator, count: int) -> bool:
    answer = await orchestrator.http.get("/dead-letters/orchestrator", params={"state": "failed"})
    return len(answer.json()["dead_letters"]) == count


async def dlq(orchestrator: Orchestrator, *arguments: str) -> Ended:
    settings = orchestrator.settings
    return await run(
        str(orchestrator.http.base_url), "dlq", *arguments, NEUROWEAVER_KAFKA_BOOTSTRAP=settings.kafka_bootstrap,
        NEUROWEAVER_DATABASE_URL=settings.database_url, NEUROWEAVER_HOME=str(settings.home),
        NEUROWEAVER_ORCHESTRATOR_DATABASE_URL=str(settings.orchestrator_database_url),
    )  # fmt: skip


def place_of(letter: Any) -> str:
    return f"{letter['topic']}:{letter['partition']}:{letter['offset']}"


async def listed(orchestrator: Orchestrator, name: str) -> Any:
    (letter,) = (await dlq(orchestrator, "list", "orchestrator", "--key", orchestrator.prefix + name, "--json")).json[
        "orchestrator"
    ]
    return letter


async def test_what_failed_is_listed_shown_retried_and_discarded(orchestrator: Orchestrator) -> None:
    bad, worse = await listed(orchestrator, "bad"), await listed(orchestrator, "worse")
    for_people = await dlq(orchestrator, "list", "orchestrator", "--state", "failed", "--error", "Poison")
    assert for_people.code == 0, for_people.err
    assert place_of(bad).removeprefix("neuroweaver.") in for_people.out
    assert "ValueError: this job is poison" in for_people.out
    shown = await dlq(orchestrator, "show", "orchestrator", place_of(bad))
    assert "raise ValueError" in shown.out
    assert orchestrator.prefix + "bad" in shown.out
    retried = await dlq(orchestrator, "retry", "orchestrator", place_of(bad).removeprefix("neuroweaver."))
    assert retried.code == 0, retried.err
    assert retried.out == f"Applied 1: {place_of(bad)}\n"
    assert (await orchestrator.job("bad"))["status"] is not None
    gone = await dlq(orchestrator, "discard", "orchestrator", place_of(worse), "--reason", "a test", "--by", "ada")
    assert gone.code == 0, gone.err
    assert (await dlq(orchestrator, "retry", "orchestrator", place_of(worse))).code == 1
    assert "cannot be undone" in (await dlq(orchestrator, "retry", "orchestrator", place_of(worse))).err
    (discarded,) = (await dlq(orchestrator, "list", "--state", "discarded", "orchestrator", "--json")).json["orchestrator"]
    assert (discarded["reason"], discarded["discarded_by"]) == ("a test", "ada")
    assert (await orchestrator.job("worse"))["status"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("show", "orchestrator", "requests:0:999999"), 4, "no such dead letter"),
        (("retry", "orchestrator", "requests:0:999999"), 4, "no dead letter"),
        (("retry", "orchestrator", "requests"), 2, "TOPIC:PARTITION:OFFSET, such as jobs:3:41207"),
        (("retry", "orchestrator"), 2, "--all or a filter"),
        (("retry", "orchestrator", "requests:0:1", "--all"), 2, "--all or a filter"),
        (("list", "nobody"), 2, "SERVICE=nobody"),
        (("list", "--since", "yesterday"), 2, "--since"),
        (("list", "--state", "odd"), 2, "--state"),
        (("discard", "orchestrator", "requests:0:1", "--reason", " "), 2, "--reason"),
    ],
)
async def test_what_is_not_valid_is_said_with_the_exit_code_that_it_has(
    orchestrator: Orchestrator, arguments: tuple[str, ...], code: int, says: str
) -> None:
    ended = await dlq(orchestrator, *arguments)
    assert (ended.code, says in ended.err) == (code, True), ended.err
