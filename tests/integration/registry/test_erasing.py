"""Erasures on real Kafka and PostgreSQL: told, done, repeated, and made good after a crash; versions that learnt from the rows are marked."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.datasets import RowsErased, RowsRemoved
from schemas.jobs import StepResult
from schemas.models import ErasedRowsLearnt
from schemas.row_digest import row_digest
from services.chassis.storage.artifacts.erased import Erasures
from services.registry.erasing import removing
from tests.command import Ended, run
from tests.registry import Registry
from tests.toy import until

NOBODY = "0" * 64


@pytest.fixture(scope="module")
async def running(kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    async with Registry(kafka, database_url, tmp_path_factory.mktemp("erasing")).running() as registry:
        yield registry


@pytest.fixture
def registry(running: Registry) -> Registry:
    running.begin()
    return running


class Data:
    """A data set of two rows that a job of the test stored; the first row is the one to erase."""

    def __init__(self, registry: Registry, digest: str, job: str = "saw", name: str = "support") -> None:
        self.registry, self.sha256, self.job = registry, digest, job
        self.id = f"{registry.name(name)}@{digest}"
        self.secret = f"secret {registry.mark}"
        self.gone, self.kept = row_digest({"says": self.secret}), row_digest({"says": f"kept {registry.mark}"})
        lines = [{"id": "train-1", "completion": self.secret}, {"id": "train-2", "completion": "kept"}]
        rows = "".join(json.dumps(line) + "\n" for line in lines)
        digests = f"{self.gone} train-1\n{self.kept} train-2\n"
        self.artifact = registry.model(train__jsonl=rows, train__rows__txt=digests, job__txt=job)
        self.index = registry.index(train_1=self.gone, train_2=self.kept)
        self.stored = registry.prepared(job, name, digest, self.artifact, outputs={"row_index": self.index})

    async def register(self) -> None:
        await self.registry.ask(self.stored)
        await until(self.shown)

    async def shown(self) -> dict[str, Any]:
        answer = await self.registry.http.get(f"/datasets/{self.id}")
        return answer.json() if answer.status_code == 200 else {}

    async def erased(self) -> dict[str, Any]:
        """Wait until the bytes are gone and return the data set."""

        async def done() -> bool:
            shown = await self.shown()
            return bool(shown["erased_rows"]) and not shown["erasing"]

        await until(done)
        return await self.shown()

    async def version(self, job: str, model: str, **more: Any) -> str:
        """Register a version of a job that stored the data set, and return its id."""
        data = {"dataset_name": self.registry.name("support"), "snapshot_sha256": self.sha256}
        step = self.registry.step(job, model, self.registry.adapter(job), data=data, alias=None, **more)
        await self.registry.ask(step)
        return f"{self.registry.name(model)}@{(await self.registry.result(step)).facts['version']}"


async def erase(registry: Registry, *rows: str, **more: Any) -> dict[str, Any]:
    answer = await registry.http.post("/erasures", json={"rows": rows, "by": "ana", "reason": "She asked.", **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def told(registry: Registry, kind: type, about: str) -> list[Any]:
    """The data of the events of a type that the registry published about a data set."""
    data = [event.data for event in registry.said if isinstance(event.data, kind)]
    return [one for one in data if about in (getattr(one, "sha256", ""), getattr(one, "dataset", ""))]


def in_store(registry: Registry, text: str) -> list[Path]:
    root = Path(registry.store.uri)
    return [path for path in root.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


async def test_rows_are_gone_from_everything_that_is_stored_and_the_data_set_keeps_its_identity(registry: Registry) -> None:
    data = Data(registry, "a1" * 32)
    await data.register()
    again = Data(registry, "a1" * 32, job="again")
    await registry.ask(again.stored)
    predictions = registry.predictions(**{"train-1": data.secret, "train-2": "kept"})
    page = f'<p>ok</p><section aria-labelledby="samples">{data.secret}</section>'
    report = registry.model(report__html=page)
    evaluated = StepResult(outputs={"predictions": predictions, "report": report}, inputs={"dataset": data.artifact.sha256})
    version = await data.version("again", "router", more_results={"evaluate-it": evaluated})
    assert len(in_store(registry, data.secret)) == 4
    before = await data.shown()

    planned = await erase(registry, data.gone, dry_run=True)
    assert (planned["id"], planned["complete"], planned["versions"]) == (None, True, [])
    assert planned["found"] == [{"dataset": data.id, "split": "train", "row": "train-1"}]
    assert Erasures(registry.store.uri).rows().isdisjoint({data.gone}), "a dry run does nothing"

    answer = await erase(registry, data.gone, dataset=f"{registry.name('support')}@{data.sha256[:12]}")
    assert data.gone in Erasures(registry.store.uri).rows(), "no job that begins from now on reads the row"
    shown = await data.erased()
    assert in_store(registry, data.secret) == []
    unchanged = ("id", "sha256", "dataset_sha256", "artifact", "row_index", "rows", "registered_at")
    assert {name: shown[name] for name in unchanged} == {name: before[name] for name in unchanged}
    assert shown["erased_rows"] == 1
    remains = ArtifactRef.model_validate(shown["remains"])
    assert json.loads((registry.store.fetch(remains, registry.home) / "train.jsonl").read_text())["id"] == "train-2"

    (event,) = told(registry, RowsErased, data.sha256)
    assert (event.erasure, event.rows, event.by, event.reason) == (answer["id"], (data.gone,), "ana", "She asked.")
    (removed,) = told(registry, RowsRemoved, data.sha256)
    assert (removed.erasures, removed.artifact, removed.others) == (1, remains, 3)
    seen = (await registry.http.get(f"/rows/{data.gone}?dataset={registry.name('support')}")).json()
    assert (seen["found"], seen["complete"]) == (planned["found"], True), "the ledger still knows the row"
    assert (await registry.http.get(f"/models/{version}")).json()["erased_rows"] == 0, "no training learnt from it"


async def test_versions_that_learnt_from_the_rows_are_marked_and_found(registry: Registry) -> None:
    data = Data(registry, "b1" * 32)
    await data.register()
    await registry.ask(registry.trained("saw", {"train-1": 2, "train-2": 1}, data.artifact))
    first = await data.version("saw", "router")
    second = await data.version("later", "router", starting=StepResult(facts={"started_from": first}))
    other = await data.version("other", "router")
    answer = await erase(registry, data.gone, data.kept)
    named = [(one["id"], one["rows"], one["through"], one["job_id"]) for one in answer["versions"]]
    assert named == [(first, 2, None, registry.job("saw")), (second, 2, first, registry.job("later"))]
    await data.erased()
    found = (
        await registry.http.get("/models", params={"name": registry.name("router"), "filter": "erased_rows > 0"})
    ).json()
    assert [(item["id"], item["erased_rows"]) for item in found["items"]] == [(second, 2), (first, 2)]
    assert (await registry.http.get(f"/models/{other}")).json()["erased"] == {}
    shown = (await registry.http.get(f"/models/{second}")).json()["erased"][data.id]
    assert {name: shown[name] for name in ("rows", "through", "by", "reason")} == {
        "rows": 2, "through": first, "by": "ana", "reason": "She asked.",
    }  # fmt: skip

    late = await data.version("saw-2", "router", starting=StepResult(facts={"started_from": second}))

    async def marked() -> bool:
        return bool((await registry.http.get(f"/models/{late}")).json()["erased_rows"])

    await until(marked)
    await erase(registry, data.gone)
    await until(lambda: len(told(registry, RowsRemoved, data.sha256)) == 2)
    marks = told(registry, ErasedRowsLearnt, data.id)
    assert sorted(f"{one.model}@{one.version}" for one in marks) == sorted([first, second, late]), "each is marked once"


async def test_rows_that_a_step_stored_while_they_were_erased_are_erased_from_there_too(registry: Registry) -> None:
    data, late = Data(registry, "c1" * 32), Data(registry, "c2" * 32, job="late", name="copy")
    await data.register()
    answer = await erase(registry, data.gone)
    await data.erased()
    await late.register()
    await late.erased()
    (event,) = told(registry, RowsErased, late.sha256)
    assert (event.erasure, event.rows, event.by) == (answer["id"], (late.gone,), "ana")
    same = Data(registry, "c2" * 32, job="same", name="copy")
    await registry.ask(same.stored)
    await until(lambda: not in_store(registry, data.secret))


async def test_a_job_that_names_the_data_set_gets_what_remains_and_is_told_how_many_rows_are_gone(
    registry: Registry,
) -> None:
    data = Data(registry, "d1" * 32)
    await data.register()
    await erase(registry, data.gone)
    remains = (await data.erased())["remains"]
    await registry.ask(step := registry.starting("reads", "base", dataset=data.id, field="dataset.reference"))
    found = await registry.result(step)
    assert found.outputs["dataset"].model_dump() == remains
    assert found.facts["erased_inputs"] == f"1 rows were erased from {data.id}"


async def test_what_no_data_set_has_is_refused_in_words(registry: Registry) -> None:
    data, other = Data(registry, "e1" * 32), Data(registry, "e2" * 32, job="other", name="other")
    await data.register()
    asked = {"rows": [data.kept, NOBODY], "reason": "She asked."}
    answer = await registry.http.post("/erasures", json=asked)
    assert answer.status_code == 404
    assert f"1 of 2 rows: {NOBODY}; no data set that is registered has such a row" in answer.text
    answer = await registry.http.post("/erasures", json={**asked, "rows": [data.kept], "dataset": other.id})
    assert answer.status_code == 404
    wrongs: tuple[dict[str, Any], ...] = ({"rows": []}, {"rows": ["x"]}, {"reason": ""}, {"dataset": "support"})
    for wrong in wrongs:
        refused = await registry.http.post("/erasures", json={**asked, **wrong})
        assert refused.status_code == 422, wrong
    assert not (await data.shown())["erasing"]


async def test_the_command_erases_a_row_of_a_file_and_says_how_to_train_without_it(
    registry: Registry, tmp_path: Path
) -> None:
    data = Data(registry, "ab" * 32)
    await data.register()
    await registry.ask(registry.trained("saw", {"train-1": 1}, data.artifact))
    version = await data.version("saw", "router")
    file = tmp_path / "row.jsonl"
    file.write_text(json.dumps({"says": data.secret}))
    planned = await command(registry, "erase", "--row", str(file), "--reason", "She asked.", "--dry-run")
    assert (planned.code, "1 rows would be erased" in planned.out) == (0, True), planned.err
    assert in_store(registry, data.secret)
    done = await command(registry, "erase", "--row", str(file), "--reason", "She asked.", "--by", "ana")
    assert done.code == 0, done.err
    assert f"neuroweaver jobs again {registry.job('saw')}" in done.out
    assert version in done.out
    assert not in_store(registry, data.secret)


async def command(registry: Registry, *arguments: str) -> Ended:
    address = str(registry.http.base_url).removesuffix("/api/v1/")
    return await run(address, "datasets", *arguments, NEUROWEAVER_HOME=str(registry.home))


async def test_a_removal_that_ended_before_it_was_told_is_told_later(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Data(registry, "f1" * 32)
    await data.register()
    monkeypatch.setattr(removing, "_AGAIN_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(removing, "removal", _ends)
        await erase(registry, data.gone)
        await until(lambda: not in_store(registry, data.secret))
        assert (await data.shown())["erasing"], "nobody was told yet"
    await data.erased()
    assert len(told(registry, RowsRemoved, data.sha256)) == 1
    assert await registry.differences() == 0


def _ends(*_: object) -> None:
    raise RuntimeError("the process ended here")
