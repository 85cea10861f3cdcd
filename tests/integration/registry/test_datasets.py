"""Data sets on real Kafka and PostgreSQL: registered once, found by people and by jobs, and equal to what the log says."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator

import pytest

from schemas.datasets import DatasetRegistered
from schemas.jobs import StepFailed, StepResult
from schemas.row_digest import row_digest
from services.registry.datasets.views import DatasetSummary
from tests.command import Ended, run
from tests.deploying import deploy, serves
from tests.model_servers import StandIn
from tests.registry import Registry
from tests.toy import until

ONE, OTHER = "0123456789ab" + "1" * 52, "0123456789ab" + "2" * 52
"""Two digests that begin alike."""


@pytest.fixture(scope="module")
async def running(kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    async with Registry(kafka, database_url, tmp_path_factory.mktemp("datasets"), StandIn).running() as registry:
        yield registry


@pytest.fixture
def registry(running: Registry) -> Registry:
    running.begin()
    return running


def told(registry: Registry) -> list[DatasetRegistered]:
    data = (event.data for event in registry.said)
    return [one for one in data if isinstance(one, DatasetRegistered) and one.registered_by == registry.mark]


async def stored(registry: Registry, *sets: tuple[str, str]) -> None:
    """Let jobs store data sets, by name and digest, and wait until the registry announced them."""
    for number, (name, digest) in enumerate(sets):
        await registry.ask(registry.prepared(f"job-{number}", name, digest, registry.model(rows__jsonl=digest)))
        await until(lambda number=number: len(told(registry)) > number)


async def test_rows_that_a_job_stored_are_announced_listed_and_shown(registry: Registry) -> None:
    await stored(registry, ("support", ONE))
    name = registry.name("support")
    shown = (await registry.http.get(f"/datasets/{name}")).json()
    assert (shown["id"], shown["rows"], shown["metrics"]["tokens_median_row"]) == (f"{name}@{ONE}", {"train": 9}, 4.5)
    assert (await registry.http.get(f"/datasets/{name}@{ONE[:20]}")).json() == shown
    (listed,) = (await registry.http.get(f"/datasets?registered_by={registry.mark}")).json()["items"]
    assert listed == {field: shown[field] for field in DatasetSummary.model_fields}


async def test_a_page_leads_on_and_a_name_means_the_version_registered_last(registry: Registry) -> None:
    digests = [str(number) * 64 for number in range(3)]
    await stored(registry, *(("support", digest) for digest in digests))
    await registry.ask(registry.prepared("again", "support", digests[0], registry.model()))
    name = registry.name("support")
    first = (await registry.http.get(f"/datasets?name={name}&limit=2")).json()
    rest = (await registry.http.get(f"/datasets?name={name}&limit=2&cursor={first['next']}")).json()
    assert [item["sha256"] for item in (*first["items"], *rest["items"])] == digests[::-1]
    assert rest["next"] is None
    assert (await registry.http.get(f"/datasets/{name}")).json()["sha256"] == digests[2]
    assert (await registry.http.get(f"/datasets?limit=2&cursor={first['next']}")).status_code == 422


async def test_a_version_says_which_data_went_into_it_and_the_data_which_versions_saw_them(registry: Registry) -> None:
    await stored(registry, ("support", ONE), ("support", "3" * 64), ("same", ONE))
    name = registry.name("support")
    for number, digest in enumerate((ONE, ONE, "4" * 64)):
        data = {"dataset_name": name, "snapshot_sha256": digest}
        step = registry.step(f"made-{number}", "router", registry.adapter(str(number)), data=data)
        await registry.ask(step)
        await registry.outcome(step)
    lineage = (await registry.http.get(f"/models/{registry.name('router')}@1.0.0")).json()["lineage"]
    assert lineage["dataset"] == f"{name}@{ONE}"
    for asked in (f"{name}@{ONE}", name, registry.name("same")):
        saw = (await registry.http.get(f"/datasets/{asked}/versions")).json()["items"]
        assert [item["version"] for item in saw] == ["1.0.1", "1.0.0"], asked
    assert (await registry.http.get(f"/datasets/{name}@{'3' * 64}/versions")).json() == {"items": [], "next": None}


async def test_a_job_gets_the_rows_that_a_prefix_of_the_digest_names_or_is_refused_in_words(registry: Registry) -> None:
    await stored(registry, ("support", ONE), ("support", "5" * 64))
    name = registry.name("support")
    await registry.ask(step := registry.starting("reads", "base", dataset=f"{name}@{ONE[:12]}", field="dataset.reference"))
    found = await registry.result(step)
    assert set(found.outputs) == {"dataset"}
    assert found.facts == {"resolved_dataset": f"{name}@{ONE}"}
    await registry.ask(registry.prepared("alike", "support", OTHER, registry.model()))
    await until(lambda: len(told(registry)) == 3)
    shutil.rmtree((await registry.http.get(f"/datasets/{name}@{'5' * 64}")).json()["artifact"]["uri"])
    for number, (reference, words) in enumerate(
        (
            (f"{name}@{ONE[:12]}", "write more digits"),
            (f"{name}@{'6' * 12}", f"name one of {OTHER[:12]}"),
            (f"no-{name}@{'6' * 12}", "no data set is registered as"),
            (f"{name}@{'5' * 12}", "missing"),
        )
    ):
        await registry.ask(
            step := registry.starting(f"reads-{number}", "base", dataset=reference, field="dataset.reference")
        )
        failed = (await registry.outcome(step)).data
        assert isinstance(failed, StepFailed), failed
        (reason,) = failed.fault.reasons
        assert (failed.fault.cause, reason.field) == ("user", "dataset.reference")
        assert words in f"{reason.message}; {reason.remedy}"
        assert reference in str(reason.value)


async def test_what_is_not_there_or_ambiguous_is_not_found(registry: Registry) -> None:
    await stored(registry, ("support", ONE), ("support", OTHER))
    name = registry.name("support")
    for asked, words in (
        (f"{name}@{ONE[:13]}", None),
        (f"{name}@{ONE[:12]}", "more digits"),
        ("nobody", "GET /api/v1/datasets"),
    ):
        answer = await registry.http.get(f"/datasets/{asked}")
        assert answer.status_code == (404 if words else 200), asked
        assert (words or "") in answer.text
    for hostile in ("..", f"{name}@{ONE[:11]}", f"{name}@xyz", "a%2Fb", "a%00", "%2e%2e", "'; DROP TABLE dataset --"):
        assert (await registry.http.get(f"/datasets/{hostile}")).status_code in (404, 422), hostile


async def test_the_rows_are_what_the_log_says(registry: Registry) -> None:
    digests = ("7" * 64, "8" * 64)
    steps = [
        registry.prepared(f"race-{n}", "race", digests[n % 2], registry.model(), requester=registry.mark) for n in range(6)
    ]
    await asyncio.gather(*(registry.ask(step) for step in steps))
    await until(lambda: len(told(registry)) == 2)
    assert {made.sha256 for made in told(registry)} == set(digests)
    assert await registry.differences() == 0


async def test_a_row_leads_to_the_trainings_versions_and_aliases_that_saw_it(registry: Registry) -> None:
    """Row 1 was learnt from twice, row 2 never; one version continues from the one that saw row 1."""
    seen, unseen, digest = row_digest({"mark": registry.mark}), row_digest({"not": registry.mark}), "a1" * 32
    rows = registry.model(rows__jsonl="1")
    index = registry.index(train_1=seen, train_2=unseen)
    await registry.ask(registry.prepared("saw", "ledger", digest, rows, outputs={"row_index": index}))
    await registry.ask(registry.trained("saw", {"train-1": 2, "train-2": 0}, rows))
    name = registry.name("ledger")
    made = registry.step("saw", "router", registry.adapter(), data={"dataset_name": name, "snapshot_sha256": digest})
    await registry.ask(made)
    await registry.outcome(made)
    first = f"{registry.name('router')}@1.0.0"
    started = StepResult(facts={"started_from": first})
    later = registry.step("later", "router", registry.adapter("2"), alias=None, starting=started)
    await registry.ask(later)
    second = f"{registry.name('router')}@{(await registry.result(later)).facts['version']}"
    await until(lambda: len(told(registry)) == 1)
    await deploy(registry, "candidate")
    await serves(registry, "1.0.0")
    answer = (await registry.http.get(f"/rows/{seen}?dataset={name}")).json()
    assert answer["found"] == [{"dataset": f"{name}@{digest}", "split": "train", "row": "train-1"}]
    steps = [(step["job_id"], step["step"], step["times"]) for step in answer["steps"]]
    assert steps == [(registry.job("saw"), "train", 2)]
    assert answer["versions"] == [
        {"id": first, "aliases": ["candidate"], "deployments": [registry.job("support")], "through": None}, {"id": second, "aliases": [], "deployments": [], "through": first},
    ]  # fmt: skip
    assert (answer["complete"], answer["remarks"]) == (True, [])
    nobody = (await registry.http.get(f"/rows/{unseen}?dataset={name}")).json()
    assert (len(nobody["found"]), nobody["steps"], nobody["versions"], nobody["complete"]) == (1, [], [], True)
    assert (await registry.http.get(f"/rows/{'0' * 64}?dataset={name}")).json()["found"] == []

    file = registry.home / "row.jsonl"
    file.write_text(json.dumps({"mark": registry.mark}))
    ended = await who_saw(registry, "--digest", seen, "--dataset", name)
    assert ended.code == 0, ended.err
    assert first in ended.out
    assert (await who_saw(registry, "--row", str(file), "--dataset", name)).out == ended.out
    assert (await who_saw(registry, "--digest", seen, "--row", str(file))).code == 2

    shutil.rmtree(index.uri)
    shutil.rmtree(registry.home / "cache" / "artifacts", ignore_errors=True)
    gone = (await registry.http.get(f"/rows/{seen}?dataset={name}")).json()
    assert (gone["complete"], gone["remarks"]) == (False, [f"the index of {name}@{digest} cannot be read: ArtifactMissing"])
    assert (await who_saw(registry, "--digest", seen, "--dataset", name)).code == 1
    assert await registry.differences() == 0


async def test_a_training_on_other_rows_of_its_job_did_not_see_the_row(registry: Registry) -> None:
    seen = row_digest({"mark": registry.mark})
    one, two = registry.model(rows__jsonl="1"), registry.model(rows__jsonl="2")
    other = registry.prepared("saw", "other", "b2" * 32, two).model_copy(update={"step": "prepare-2"})
    index = registry.index(train_1=seen)
    await registry.ask(registry.prepared("saw", "ledger", "b1" * 32, one, outputs={"row_index": index}), other)
    read = {"one": one, "two": two, "pairs-of-a-judge": registry.predictions(r="a")}
    await registry.ask(*(registry.trained("saw", {"train-1": 1}, artifact, step) for step, artifact in read.items()))
    found = list[str]()

    async def both() -> bool:
        answer = (await registry.http.get(f"/rows/{seen}?dataset={registry.name('ledger')}")).json()
        found[:] = sorted(step["step"] for step in answer["steps"])
        return len(found) >= 2

    await until(both)
    assert found == ["one", "pairs-of-a-judge"]


async def who_saw(registry: Registry, *arguments: str) -> Ended:
    address = str(registry.http.base_url).removesuffix("/api/v1/")
    return await run(address, "datasets", "who-saw", *arguments, NEUROWEAVER_HOME=str(registry.home))
