"""`neuroweaver models` as a process against a registry that runs: what it prints, what it brings and how it ends."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.artifacts import ArtifactRef
from tests.command import Ended, run
from tests.registry import Registry


@pytest.fixture(scope="module")
async def running(kafka: str, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    async with Registry(kafka, database_url, tmp_path_factory.mktemp("models")).running() as registry:
        yield registry


@pytest.fixture
def registry(running: Registry) -> Registry:
    running.begin()
    return running


async def models(registry: Registry, *arguments: str) -> Ended:
    address = str(registry.http.base_url).removesuffix("/api/v1/")
    return await run(address, "models", *arguments, NEUROWEAVER_HOME=str(registry.home))


async def registered(registry: Registry, job: str = "job", content: str = "weights") -> ArtifactRef:
    adapter = registry.adapter(content)
    step = registry.step(job, "router", adapter)
    await registry.ask(step)
    await registry.outcome(step)
    return adapter


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_versions_are_listed_for_people_and_for_programs(registry: Registry) -> None:
    await registered(registry, "job-1", "first")
    await registered(registry, "job-2", "second")
    name = registry.name("router")
    for_people = await models(registry, "list", "--name", name)
    assert for_people.code == 0, for_people.err
    newest, oldest = (line for line in for_people.out.splitlines() if name in line)
    assert f"{name}@1.0.1" in newest
    assert "candidate" in newest
    assert "exact_match 0.9" in newest
    assert f"{name}@1.0.0" in oldest
    for_programs = await models(registry, "list", "--name", name, "--json", "--limit", "1")
    assert [item["version"] for item in for_programs.json] == ["1.0.1"]
    assert for_programs.json == (await registry.http.get(f"/models?name={name}&limit=1")).json()["items"]


async def test_a_version_is_shown_with_how_it_came_about(registry: Registry) -> None:
    adapter = await registered(registry)
    name = registry.name("router")
    shown = await models(registry, "show", f"{name}@candidate")
    assert shown.code == 0, shown.err
    for text in (f"{name}@1.0.0", adapter.sha256, registry.job("job"), "d" * 64, "b" * 64, "exact_match", "evaluate-base"):
        assert text in shown.out
    assert (await models(registry, "show", name, "--json")).json["artifact"] == adapter.model_dump()


@pytest.mark.parametrize("command", ["show", "download"])
async def test_a_version_that_does_not_exist_is_said_with_exit_code_4(
    registry: Registry, tmp_path: Path, command: str
) -> None:
    more = [str(tmp_path / "there")] if command == "download" else []
    ended = await models(registry, command, registry.name("nobody"), *more)
    assert ended.code == 4
    assert registry.name("nobody") in ended.err
    assert ended.out == ""
    assert not (tmp_path / "there").exists()


async def test_a_download_is_the_files_of_the_version_and_nothing_half(registry: Registry, tmp_path: Path) -> None:
    adapter = await registered(registry)
    folder = tmp_path / "here"
    ended = await models(registry, "download", registry.name("router"), str(folder), "--json")
    assert ended.code == 0, ended.err
    assert ended.json == {"id": f"{registry.name('router')}@1.0.0", "folder": str(folder), "sha256": adapter.sha256}
    assert contents(folder) == contents(Path(adapter.uri))
    again = await models(registry, "download", registry.name("router"), str(folder))
    assert again.code == 2
    assert "exists already" in again.err
    assert names(tmp_path) == ["here"]


async def test_a_version_whose_files_were_changed_is_not_brought(registry: Registry, tmp_path: Path) -> None:
    adapter = await registered(registry)
    weights = Path(adapter.uri) / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_text("other weights")
    ended = await models(registry, "download", registry.name("router"), str(tmp_path / "here"))
    assert ended.code == 1
    assert "adapter_model.safetensors" in ended.err
    assert "Traceback" not in ended.err
    assert names(tmp_path) == []
