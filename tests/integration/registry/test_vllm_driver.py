"""Whatever a vLLM server does, a slot says so in a word and with a remedy, and serves again when it can.

The servers are stand-ins that speak vLLM's API (`tests.vllm_stand_in`).
"""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from schemas.lines import Message
from services.chassis.storage.artifacts.store import ArtifactStore
from services.registry.deploying.driver import Target
from services.registry.deploying.files import Sources
from services.registry.deploying.remote.driver import Pace, RemoteDriver
from services.registry.deploying.remote.patience import Patience
from services.registry.deploying.settings import VllmServer
from services.registry.deploying.vllm.backend import VllmBackend, seen_at
from tests.allowed import IN_TESTS
from tests.remote_driver import seen
from tests.toy import until
from tests.trainer import put_lines
from tests.vllm_servers import VllmProcess
from tests.vllm_stand_in import How

QUICK = Patience(between=0.02, look=10, misses=2)
Start = Callable[..., RemoteDriver]


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target("support", "g1", "router", "1.0.0", adapter(tmp_path), "adapter", "base", "b" * 64, driver="vllm")


def adapter(home: Path, name: str = "one") -> ArtifactRef:
    return stored(home, name, {"adapter_config.json": "{}", "adapter_model.safetensors": name})


def stored(home: Path, name: str, files: dict[str, str]) -> ArtifactRef:
    folder = home / f"made-{name}"
    folder.mkdir()
    for file, text in files.items():
        (folder / file).write_text(text)
    return ArtifactStore(str(home / "artifacts")).put(folder)


def name_of(target: Target) -> str:
    return f"nw/{target.served}:{target.artifact.sha256[:16]}"


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmProcess]:
    started = VllmProcess(tmp_path_factory.mktemp("vllm")).start()
    yield started
    started.kill()


@pytest.fixture
def vllm(process: VllmProcess) -> VllmProcess:
    """The server as it begins, without adapters."""
    process.forget()
    return process


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Make a driver of servers."""
    drivers: list[RemoteDriver] = []

    def started(*servers: VllmServer, patience: Patience = QUICK) -> RemoteDriver:
        sources = Sources(str(tmp_path / "artifacts"), tmp_path / "cache", IN_TESTS)
        drivers.append(RemoteDriver(VllmBackend(servers, "nw", sources, patience), Pace(0.01, 0.05, 0.0)))
        return drivers[-1]

    yield started
    for driver in drivers:
        await driver.close()


async def test_an_adapter_is_loaded_under_a_name_with_its_digest_once_for_all_slots_and_unloaded_with_the_last(
    tmp_path: Path, vllm: VllmProcess, target: Target, start: Start
) -> None:
    vllm.behave(mount=str(tmp_path))
    driver = start(vllm.server(paths={str(tmp_path / "artifacts"): "/mnt/artifacts", "/": "/elsewhere"}))
    other = replace(target, slot="g2")
    await driver.ensure(target)
    slot = await seen(driver, "ready", "Ready")
    await driver.ensure(other)
    await until(lambda: all(one.observed.state == "ready" for one in driver._slots.values()))
    at = target.artifact.uri.replace(str(tmp_path), "/mnt")
    assert (slot.address, slot.called, slot.served) == (vllm.url, name_of(target), "router@1.0.0")
    assert vllm.adapters() == {name_of(target): at}
    assert len(vllm.asked("/v1/load_lora_adapter")) == 1
    await driver.remove("support", "g1", 0)
    await until(lambda: len(driver._slots) == 1)
    assert vllm.adapters() == {name_of(target): at}
    await driver.remove("support", "g2", 0)
    await until(lambda: not vllm.adapters())


@pytest.mark.parametrize(
    ("how", "server", "reason", "words"),
    [
        ({"updates": False}, {}, "UpdatesDisabled", "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        ({"load_error": "LoRA is not enabled. Use --enable-lora."}, {}, "UpdatesDisabled", "--enable-lora"),
        ({"load_error": "LoRA rank 64 is greater than max_lora_rank 16."}, {}, "Unloadable", "--max-lora-rank"),
        ({"load_error": "No free lora slots", "load_status": 400}, {}, "ServerFull", "--max-loras"),
        ({"load_error": "'q_proj' is no module of it"}, {}, "Unloadable", "'q_proj' is no module"),
        ({"load_error": "later", "load_status": 503}, {}, "NotAnswering", "too busy"),
        ({"mount": "/nowhere"}, {"paths": {"/": "/mnt"}}, "FilesUnavailable", "set `paths`"),
        ({"key": "right"}, {}, "KeyRefused", "api_key_variable"),
        ({"key": "right"}, {"api_key_variable": "NO_KEY"}, "KeyRefused", "NO_KEY of the registry, which is empty"),
        ({"key": "right"}, {"api_key_variable": "WRONG_KEY"}, "KeyRefused", "--api-key"),
        ({"base": "other"}, {}, "NoServer", "serves other, and not base"),
        ({}, {"base_model": "other"}, "NoServer", "the configured vLLM servers serve other"),
        ({}, {"base_model_sha256": "c" * 64}, "WrongBase", "correct base_model_sha256"),
        ({"load_error": "EngineCore encountered an issue", "dies": True}, {}, "NotAnswering", "not healthy"),
        ({"garbage": True}, {}, "NotAnswering", "is not OpenAI's API"),
        ({"healthy": False}, {}, "NotAnswering", "not healthy"),
        ({"chat_status": 500}, {}, "NotAnswering", "the engine is dead"),
        ({"says": " "}, {}, "EmptyAnswer", "with nothing"),
    ],
)  # fmt: skip
async def test_what_keeps_a_server_from_serving_is_said_with_a_remedy_and_a_server_that_is_mended_serves(
    vllm: VllmProcess, target: Target, start: Start, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any],
    server: dict[str, Any], reason: str, words: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("WRONG_KEY", "wrong-secret")
    vllm.behave(**how)
    driver = start(vllm.server(**server))
    await driver.ensure(target)
    slot = await seen(driver, "failed", reason)
    assert words in slot.message
    assert "wrong-secret" not in slot.message
    assert slot.address is None
    if how and not server:
        vllm.behave(**asdict(How()))

        async def mended() -> bool:
            await driver.ensure(target)
            return (await driver.observed())[0].state == "ready"

        await until(mended)


async def test_a_server_that_hangs_or_dies_is_said_and_gets_its_adapters_again_when_it_is_back(
    vllm: VllmProcess, target: Target, start: Start
) -> None:
    driver = start(vllm.server(), patience=replace(QUICK, look=0.5))
    await driver.ensure(target)
    await seen(driver, "ready", "Ready")
    vllm.behave(hangs=True)
    assert "did not answer" in (await seen(driver, "failed", "NotAnswering")).message
    vllm.kill()
    vllm.behave(hangs=False)

    async def said() -> bool:
        return "cannot be reached" in (await driver.observed())[0].message

    await until(said)
    vllm.start()
    await seen(driver, "ready", "Ready")
    assert list(vllm.adapters()) == [name_of(target)]


async def test_an_adapter_that_somebody_unloads_or_replaces_is_loaded_again_from_the_verified_files(
    tmp_path: Path, vllm: VllmProcess, target: Target, start: Start
) -> None:
    elsewhere = adapter(tmp_path, "elsewhere").uri
    vllm.load(name_of(target), elsewhere)
    driver = start(vllm.server())
    await driver.ensure(target)
    await seen(driver, "ready", "Ready")
    assert vllm.adapters() == {name_of(target): target.artifact.uri}
    vllm.unload(name_of(target))
    await until(lambda: vllm.adapters() == {name_of(target): target.artifact.uri})
    await seen(driver, "ready", "Ready")


async def test_leftovers_of_this_registry_are_unloaded_those_of_others_stay_and_a_standby_unloads_nothing(
    tmp_path: Path, vllm: VllmProcess, target: Target, start: Start
) -> None:
    for name in ("nw/router@0.1.0:0123456789abcdef", "other/router@0.1.0:0123456789abcdef", "by-hand"):
        vllm.load(name, target.artifact.uri)
    driver = start(vllm.server())
    await driver.ensure(target)
    await seen(driver, "ready", "Ready")

    async def swept() -> bool:
        await driver.observed()
        return set(vllm.adapters()) == {name_of(target), "other/router@0.1.0:0123456789abcdef", "by-hand"}

    await until(swept)
    await driver.stand_by(0)
    assert await driver.observed() == []
    assert name_of(target) in vllm.adapters()


async def test_of_two_servers_the_one_that_answers_and_has_room_gets_the_adapter(
    tmp_path: Path, vllm: VllmProcess, target: Target, start: Start
) -> None:
    vllm.load("by-hand", target.artifact.uri)
    gone = VllmServer(url="http://127.0.0.1:1", base_model="base")
    full, room = vllm.server(adapters=1), VllmProcess(tmp_path / "second").start()
    try:
        driver = start(gone, full, room.server(base_model="renamed", base_model_sha256="b" * 64, serves="base"))
        await driver.ensure(target)
        assert (await seen(driver, "ready", "Ready")).address == room.url
    finally:
        room.kill()
    only = start(full)
    await only.ensure(target)
    assert "has 1 adapters, and may have 1" in (await seen(only, "failed", "ServerFull")).message


async def test_a_whole_model_is_ready_only_where_a_server_serves_exactly_its_folder(
    tmp_path: Path, vllm: VllmProcess, start: Start
) -> None:
    artifact = stored(tmp_path, "whole", {"config.json": "{}", "model.safetensors": "weights"})
    target = Target("support", "g1", "router", "2.0.0", artifact, "model", "base", None)
    driver = start(vllm.server())
    await driver.ensure(target)
    assert f"vllm serve {artifact.uri}" in (await seen(driver, "failed", "NotServed")).message
    vllm.behave(base="whole", root=f"{artifact.uri}/")
    await driver.ensure(target)
    assert (await seen(driver, "ready", "Ready")).called == "whole"
    assert vllm.asked("/v1/load_lora_adapter") == []


async def test_an_altered_artifact_is_not_loaded_and_answers_must_begin_as_evaluation_recorded_them(
    tmp_path: Path, vllm: VllmProcess, target: Target, start: Start
) -> None:
    line: dict[str, Any] = {"columns": {}, "reference": "red", "samples": [], "nll": None, "greedy": "red"}
    asked = [Message(role="user", content="colour?").model_dump()]
    answers = put_lines(tmp_path, predictions=[{"id": str(number), "messages": asked, **line} for number in range(3)])
    other = replace(target, predictions=answers)
    driver = start(vllm.server())
    await driver.ensure(other)
    assert "'Hello.' and not 'red'" in (await seen(driver, "failed", "AnswerDiffers")).message
    lenient = start(vllm.server(compare_answers=False))
    await lenient.ensure(other)
    await seen(lenient, "ready", "Ready")
    before = len(vllm.asked("/v1/load_lora_adapter"))
    file = Path(target.artifact.uri) / "adapter_model.safetensors"
    file.chmod(0o600)
    file.write_text("eno")
    altered = start(vllm.server())
    await altered.ensure(target)
    await seen(altered, "failed", "DigestMismatch")
    assert len(vllm.asked("/v1/load_lora_adapter")) == before


def test_a_folder_is_where_the_longest_mapped_folder_lies() -> None:
    paths = {"/srv/nw": "/mnt", "/srv/nw/artifacts": "/data"}
    assert seen_at("/srv/nw/artifacts/ab/c", paths) == "/data/ab/c"
    assert seen_at("/srv/nw/cache", paths) == "/mnt/cache"
    assert seen_at("/srv/nw-2/x", paths) == "/srv/nw-2/x"
