"""States of versions on real Kafka and PostgreSQL: what is used is not archived, and what is archived is not used."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from schemas.jobs import JobCancelled, StepFailed, StepResult
from schemas.models import VersionStateChanged
from tests.registry import Registry
from tests.toy import until


@pytest.fixture(scope="module")
async def running(kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    async with Registry(kafka, database_url, tmp_path_factory.mktemp("registry")).running() as registry:
        yield registry


@pytest.fixture
def registry(running: Registry) -> Registry:
    running.begin()
    return running


async def registered(registry: Registry, job: str, model: str = "router", *, starting: str | None = None) -> None:
    found = StepResult(facts={"started_from": starting}) if starting else None
    step = registry.step(job, model, registry.adapter(job), alias=None, starting=found)
    await registry.ask(step)
    await registry.result(step)


async def put(registry: Registry, version: str, state: str, model: str = "router") -> httpx2.Response:
    body = {"state": state, "by": "ana", "reason": "It is old."}
    return await registry.http.put(f"/models/{registry.name(model)}@{version}/state", json=body)


async def ended(registry: Registry, job: str, version: str) -> None:
    """A job ends, and the registry knows: it is none of the uses of the version any more."""
    await registry.ask(JobCancelled(job_id=registry.job(job), reason="It was only a test."))
    probe = {"state": "archived", "reason": "It is free."}
    path = f"/models/{registry.name('router')}@{version}/state"

    async def free() -> bool:
        return (await registry.http.put(path, json=probe)).status_code == 200

    await until(free)


async def test_a_version_is_archived_when_nothing_uses_it_and_lists_filters_and_the_log_show_its_state(
    registry: Registry,
) -> None:
    await registered(registry, "job-1")
    await registered(registry, "job-2")
    name = registry.name("router")
    await registered(registry, "job-3", "child", starting=f"{name}@1.0.0")
    await registry.http.put(f"/models/{name}/aliases/production", json={"version": "1.0.0"})
    used = await put(registry, "1.0.0", "archived")
    fields = [(reason["field"], reason["value"]) for reason in used.json()["reasons"]]
    child = registry.name("child")
    assert (used.status_code, fields) == (409, [("aliases.production", "'1.0.0'"), ("used_by", f"'{child}@1.0.0'")])
    assert (await put(registry, "production", "deprecated")).json()["state"] == "deprecated"
    gone = await registry.http.put(f"/models/{child}@1.0.0/state", json={"state": "archived", "reason": "Nobody uses it."})
    assert gone.json()["state_reason"] == "Nobody uses it."
    assert (await registry.http.delete(f"/models/{name}/aliases/production")).status_code == 200
    archived = await put(registry, "1.0.0", "archived")
    assert (archived.status_code, archived.json()["state"]) == (200, "archived")
    refused = await registry.http.put(f"/models/{name}/aliases/production", json={"version": "1.0.0"})
    assert (refused.status_code, refused.json()["reasons"][0]["field"]) == (422, "version")

    (listed,) = (await registry.http.get(f"/models?name={name}&state=archived")).json()["items"]
    filtered = (await registry.http.get("/models", params={"filter": f"name = '{name}' AND state != 'archived'"})).json()
    assert (listed["version"], listed["state"]) == ("1.0.0", "archived")
    assert [(item["version"], item["state"]) for item in filtered["items"]] == [("1.0.1", "live")]
    recommended = (await registry.http.get(f"/models/{name}/recommendation")).json()
    assert (recommended["version"], recommended["missing"]) == (f"{name}@1.0.1", [f"{name}@1.0.0 is archived: It is old."])
    compared = (await registry.http.get(f"/comparison?versions={name}@1.0.0,{name}@1.0.1")).json()
    assert f"{name}@1.0.0 is archived: It is old." in compared["remarks"]
    changes = [event.data for event in await registry.about("router", 6) if isinstance(event.data, VersionStateChanged)]
    assert [(change.previous, change.state) for change in changes] == [("live", "deprecated"), ("deprecated", "archived")]
    assert await registry.differences() == 0


async def test_no_job_starts_from_what_is_archived_and_what_is_deprecated_is_told(registry: Registry) -> None:
    await registered(registry, "job-1")
    reference = f"{registry.name('router')}@1.0.0"
    await put(registry, "1.0.0", "deprecated")
    await registry.ask(step := registry.starting("next", reference))
    assert (await registry.result(step)).facts["version_deprecated"] == f"{reference} is deprecated: It is old."
    running = await put(registry, "1.0.0", "archived")
    assert [reason["value"] for reason in running.json()["reasons"]] == [f"'job {registry.job('next')}'"]
    await ended(registry, "next", "1.0.0")
    await put(registry, "1.0.0", "archived")
    await registry.ask(step := registry.starting("late", reference))
    failed = (await registry.outcome(step)).data
    assert isinstance(failed, StepFailed)
    (reason,) = failed.fault.reasons
    assert (reason.field, "is archived: It is old." in reason.message) == ("base_model", True)
    assert (await put(registry, "1.0.0", "live")).json()["state"] == "live"
    await registry.ask(step := registry.starting("again", reference))
    assert "version_deprecated" not in (await registry.result(step)).facts


async def test_of_a_promotion_and_an_archiving_at_once_one_is_refused(registry: Registry) -> None:
    await registered(registry, "job-1")
    await registered(registry, "job-2")
    path = f"/models/{registry.name('router')}/aliases/production"
    for turn in range(4):
        promoting = registry.http.put(path, json={"version": "1.0.1"})
        both = (
            (promoting, put(registry, "1.0.1", "archived")) if turn % 2 else (put(registry, "1.0.1", "archived"), promoting)
        )
        said = await asyncio.gather(*both)
        assert sorted(one.status_code for one in said) in ([200, 409], [200, 422]), [one.text for one in said]
        shown = (await registry.http.get(f"/models/{registry.name('router')}@1.0.1")).json()
        assert (shown["aliases"] == []) is (shown["state"] == "archived")
        await registry.http.delete(path)
        await put(registry, "1.0.1", "live")


async def test_a_state_that_is_none_or_of_no_version_is_refused(registry: Registry) -> None:
    await registered(registry, "job-1")
    assert (await put(registry, "1.0.0", "gone")).status_code == 422
    assert (await put(registry, "9.9.9", "archived")).status_code == 404
    whole = await registry.http.put(f"/models/{registry.name('router')}/state", json={"state": "archived", "reason": "r"})
    assert whole.status_code == 422


async def test_a_deleted_version_is_hidden_refused_and_restored_and_its_number_stays_taken(registry: Registry) -> None:
    await registered(registry, "job-1")
    await registered(registry, "job-2")
    name = registry.name("router")
    await registered(registry, "job-3", "child", starting=f"{name}@1.0.1")
    child = registry.name("child")
    used = await put(registry, "1.0.1", "deleted")
    assert (used.status_code, [one["value"] for one in used.json()["reasons"]]) == (409, [f"'{child}@1.0.0'"])
    await put(registry, "1.0.0", "archived", "child")
    assert (await put(registry, "1.0.1", "deleted")).status_code == 409
    assert (await put(registry, "1.0.0", "deleted", "child")).status_code == 200
    assert (await put(registry, "1.0.1", "deleted")).json()["state"] == "deleted"

    async def listed(**asked: str) -> list[str]:
        items = (await registry.http.get("/models", params={"name": name, **asked})).json()["items"]
        return [item["version"] for item in items]

    assert await listed() == ["1.0.0"]
    assert await listed(state="deleted") == ["1.0.1"]
    assert await listed(filter="state = 'deleted' OR state = 'live'") == ["1.0.1", "1.0.0"]
    assert await listed(filter="version LIKE '1%'") == ["1.0.0"]
    assert (await registry.http.get(f"/models/{name}")).json()["version"] == "1.0.0"
    assert (await registry.http.get(f"/models/{name}@1.0.1")).json()["state_reason"] == "It is old."
    assert (await registry.http.get(f"/models/{name}/recommendation")).json()["version"] == f"{name}@1.0.0"
    refused = await registry.http.put(f"/models/{name}/aliases/production", json={"version": "1.0.1"})
    assert (refused.status_code, "deleted: It is old." in refused.text) == (422, True)
    await registry.ask(step := registry.starting("late", f"{name}@1.0.1"))
    failed = (await registry.outcome(step)).data
    assert isinstance(failed, StepFailed)
    assert "is deleted: It is old." in failed.fault.reasons[0].message
    orphan = await put(registry, "1.0.0", "live", "child")
    assert (orphan.status_code, orphan.json()["reasons"][0]["value"]) == (409, f"'{name}@1.0.1'")
    await registered(registry, "job-4")
    assert await listed() == ["1.0.2", "1.0.0"]
    assert (await put(registry, "1.0.1", "live")).json()["state"] == "live"
    assert (await put(registry, "1.0.0", "live", "child")).status_code == 200
    assert await registry.differences() == 0
