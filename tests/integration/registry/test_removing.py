"""Artifacts are removed when no row of any service references them, and never where that is not known; on real Kafka and PostgreSQL."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from schemas.artifacts import ArtifactRef
from schemas.models import VersionFilesRemoved
from schemas.topics import JOBS
from services.chassis.postgres.exclusive import exclusive
from services.chassis.postgres.locks import ARTIFACTS_LOCK, REPLAY_LOCK
from services.chassis.replay import artifacts, referenced
from services.chassis.replay.artifacts import UnreferencedArtifacts
from services.chassis.replay.referenced import ReferencedArtifacts, Unsure
from services.chassis.storage import metrics
from services.chassis.storage.artifacts.erased import Erasures, Remaining
from services.chassis.storage.artifacts.errors import ArtifactMissing
from services.chassis.storage.retention.policy import RetentionSettings
from services.chassis.storage.retention.run import RemovedAmount, retain
from services.registry.removing import FileRemovals
from tests.databases import provide
from tests.registry import Registry
from tests.toy import until


@pytest.fixture(scope="module")
async def running(kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    async with Registry(kafka, database_url, tmp_path_factory.mktemp("registry")).running() as registry:
        yield registry


@pytest.fixture
async def registry(running: Registry) -> Registry:
    """The store is empty but for what a test puts there."""
    running.begin()
    for digest in running.store.removals.digests():
        if known := running.store.removals.examine(digest):
            running.store.removals.remove(known)
    return running


@pytest.fixture
async def unreferenced(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[UnreferencedArtifacts]:
    """What another process of this deployment does, such as the command; nothing is kept for a time, and it has patience."""
    monkeypatch.setattr(referenced, "_PATIENCE_SECONDS", 120.0)
    monkeypatch.setattr(artifacts, "_TAKEN_SECONDS", 120.0)
    monkeypatch.setattr(artifacts, "_TOLD_SECONDS", 120.0)
    runtime = registry.runtime()
    at_once = RetentionSettings().model_copy(update={"artifacts_days": 0})
    runtime.settings = registry.settings.model_copy(update={"retention": at_once})
    yield UnreferencedArtifacts([registry.service().referenced], FileRemovals(runtime))
    await runtime.engine.dispose()


async def registered(registry: Registry, job: str, made: ArtifactRef) -> None:
    step = registry.step(job, "router", made, alias=None)
    await registry.ask(step)
    await registry.result(step)


async def put(registry: Registry, version: str, state: str) -> httpx2.Response:
    body = {"state": state, "by": "ana", "reason": "It is old."}
    return await registry.http.put(f"/models/{registry.name('router')}@{version}/state", json=body)


def is_there(registry: Registry, made: ArtifactRef) -> bool:
    try:
        registry.store.verify(made)
    except ArtifactMissing:
        return False
    return True


async def refused(unreferenced: UnreferencedArtifacts) -> str:
    with pytest.raises(Unsure) as doubt:
        await unreferenced.apply(dry=False)
    return str(doubt.value)


async def test_the_files_of_a_deleted_version_go_after_that_was_told_and_it_is_not_restored(
    registry: Registry, unreferenced: UnreferencedArtifacts
) -> None:
    kept, deleted, orphan = (registry.adapter(f"{name} {registry.mark}") for name in ("kept", "deleted", "orphan"))
    await registered(registry, "job-1", kept)
    await registered(registry, "job-2", deleted)
    assert (await put(registry, "1.0.1", "deleted")).status_code == 200
    would = await unreferenced.apply(dry=True)
    assert (would.count, would.size > deleted.size + orphan.size) == (2, True)
    assert is_there(registry, deleted)
    before = metrics.REMOVED.labels("all", "artifacts")._value.get()
    (removal,) = await retain("all", [unreferenced])
    assert (removal.count, removal.size, removal.error) == (2, would.size, None)
    assert metrics.REMOVED.labels("all", "artifacts")._value.get() == before + 2
    assert [is_there(registry, one) for one in (kept, deleted, orphan)] == [True, False, False]
    told = (await registry.about("router", 4))[-1].data
    assert isinstance(told, VersionFilesRemoved)
    assert (told.version, told.artifact) == ("1.0.1", deleted)

    restored = await put(registry, "1.0.1", "live")
    assert (restored.status_code, restored.json()["reasons"][0]["field"]) == (409, "artifact")
    shown = (await registry.http.get(f"/models/{registry.name('router')}@1.0.1")).json()
    assert (shown["state"], shown["files_removed_at"] is None) == ("deleted", False)
    await registered(registry, "job-3", kept)
    versions = (await registry.http.get("/models", params={"name": registry.name("router")})).json()["items"]
    assert [one["version"] for one in versions] == ["1.0.2", "1.0.0"]
    assert await unreferenced.apply(dry=False) == RemovedAmount(0, 0)
    assert await registry.differences() == 0


async def test_what_two_versions_have_goes_when_both_are_deleted_and_none_was_restored_meanwhile(
    registry: Registry, unreferenced: UnreferencedArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = registry.adapter(f"shared {registry.mark}")
    await registered(registry, "job-1", shared)
    await registered(registry, "job-2", shared)
    await put(registry, "1.0.0", "deleted")
    assert (await unreferenced.apply(dry=True)).count == 0
    await put(registry, "1.0.1", "deleted")
    release = FileRemovals.release

    async def later(self: FileRemovals, *given: Any) -> Any:
        assert (await put(registry, "1.0.0", "live")).status_code == 200
        return await release(self, *given)

    with monkeypatch.context() as restoring:
        restoring.setattr(FileRemovals, "release", later)
        assert await unreferenced.apply(dry=False) == RemovedAmount(0, 0)
    assert (await put(registry, "1.0.1", "live")).status_code == 200
    for version in ("1.0.0", "1.0.1"):
        await put(registry, version, "deleted")
    assert (await unreferenced.apply(dry=False)).count == 1


async def test_what_another_version_continues_from_stays_even_if_it_was_deleted_first(
    registry: Registry, unreferenced: UnreferencedArtifacts
) -> None:
    """A failed job may be retried after its version was deleted, and then registers what continues from it."""
    parent, child = (registry.adapter(f"{name} {registry.mark}") for name in ("parent", "child"))
    await registered(registry, "job-1", parent)
    await put(registry, "1.0.0", "deleted")
    base = (f"{registry.name('router')}@1.0.0", "b" * 64)
    step = registry.step("job-2", "child", child, base=base, alias=None)
    await registry.ask(step)
    await registry.result(step)
    assert (await unreferenced.apply(dry=False)).count == 0
    assert is_there(registry, parent)


async def test_what_is_young_or_put_again_meanwhile_stays(
    registry: Registry, unreferenced: UnreferencedArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = registry.home / f"again-{registry.mark}"
    folder.mkdir()
    (folder / "weights").write_text(f"again {registry.mark}")
    made = registry.store.put(folder)
    runtime = registry.runtime()
    assert await replace(unreferenced, owner=FileRemovals(runtime)).apply(dry=False) == RemovedAmount(0, 0)
    release = FileRemovals.release

    async def later(self: FileRemovals, *given: Any) -> Any:
        assert registry.store.put(folder) == made
        return await release(self, *given)

    monkeypatch.setattr(FileRemovals, "release", later)
    assert await unreferenced.apply(dry=False) == RemovedAmount(0, 0)
    assert is_there(registry, made)
    await runtime.engine.dispose()


async def test_what_remains_of_an_artifact_after_an_erasure_stays(
    registry: Registry, unreferenced: UnreferencedArtifacts
) -> None:
    """No row names it: the store itself says what it is."""
    rest = registry.adapter(f"rest {registry.mark}")
    Erasures(registry.store.uri).leave("e" * 64, Remaining(ref=rest, rows=1))
    assert await unreferenced.apply(dry=False) == RemovedAmount(0, 0)
    assert is_there(registry, rest)


async def test_nothing_goes_while_a_service_is_behind_cannot_be_asked_or_another_process_removes(
    registry: Registry, unreferenced: UnreferencedArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan = registry.adapter(f"orphan {registry.mark}")
    (own,) = unreferenced.services
    late_url = own.reading.database_url.replace("/registry_", "/late_")
    settings = registry.settings.model_copy(update={"registry_database_url": late_url})
    await provide(settings, "registry")
    late = ReferencedArtifacts("late", replace(own.reading, database_url=late_url, topics=(JOBS.name,)))
    with monkeypatch.context() as impatient:
        impatient.setattr(referenced, "_PATIENCE_SECONDS", -1.0)
        assert "late has not applied neuroweaver.jobs" in await refused(replace(unreferenced, services=[late, own]))
    gone = ReferencedArtifacts("gone", replace(own.reading, database_url=late_url.replace("/late_", "/gone_")))
    (removal,) = await retain("all", [replace(unreferenced, services=[own, gone])])
    assert (removal.count, "gone_" in str(removal.error)) == (0, True)
    for module, patience, lock, words in (
        (artifacts, "_TAKEN_SECONDS", ARTIFACTS_LOCK, "another process"),
        (referenced, "_PATIENCE_SECONDS", REPLAY_LOCK, "made again"),
    ):
        async with exclusive(unreferenced.owner.engine) as other:
            await until(lambda lock=lock: other.take(lock))
            with monkeypatch.context() as impatient:
                impatient.setattr(module, patience, -1.0)
                assert words in await refused(unreferenced)
    assert is_there(registry, orphan)
    assert (await unreferenced.apply(dry=False)).count == 1


async def test_what_is_not_in_the_log_yet_is_removed_later(
    registry: Registry, unreferenced: UnreferencedArtifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry does not run, so what it tells of a deleted version waits in its outbox."""
    deleted = registry.adapter(f"deleted {registry.mark}")
    await registered(registry, "job-1", deleted)
    await put(registry, "1.0.0", "deleted")
    digests = ReferencedArtifacts.digests

    async def waiting(self: ReferencedArtifacts, seconds: float) -> set[str]:
        return await digests(self, seconds) | ({deleted.sha256} if told else set())

    told: list[str] = []
    release = FileRemovals.release

    async def noted(self: FileRemovals, *given: Any) -> Any:
        told.append("told")
        return await release(self, *given)

    with monkeypatch.context() as standing:
        standing.setattr(ReferencedArtifacts, "digests", waiting)
        standing.setattr(FileRemovals, "release", noted)
        standing.setattr(artifacts, "_TOLD_SECONDS", -1.0)
        assert await unreferenced.apply(dry=False) == RemovedAmount(0, 0)
    assert is_there(registry, deleted)
    assert (await unreferenced.apply(dry=False)).count == 1
