"""Whatever becomes of a process that serves a version, its slot says so in a word and with a remedy, and serves again when it can.

The process has no model here (`test_deployed_model.py` has a real one); what it is to load is checked as always.
"""

import importlib.util
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from schemas.artifacts import ArtifactRef
from schemas.lines import Message, Prediction
from services.chassis.storage.artifacts.store import ArtifactStore
from services.chassis.storage.references import folder_digest
from services.registry.deploying.driver import Observed, Target
from services.registry.deploying.faults import Refused
from services.registry.deploying.files import Sources, verified
from services.registry.deploying.local import memory
from services.registry.deploying.local.base import Backoff, ProcessOptions
from services.registry.deploying.local.driver import LocalDriver
from services.registry.deploying.local.server import Patience
from tests.allowed import IN_TESTS
from tests.changed_adapter import changed_adapter
from tests.faults.small_disk import remount, small_disk, why_not
from tests.tiny_model import build
from tests.toy import until
from tests.trainer import put_lines

ASKED = (Message(role="user", content="colour 3?"),)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deployed")
    build(folder / "base")
    return folder


@pytest.fixture(scope="module")
def artifact(home: Path) -> ArtifactRef:
    return changed_adapter(home, home / "base")


@pytest.fixture
def target(home: Path, artifact: ArtifactRef) -> Target:
    base = home / "base"
    return Target("support", "active", "tuned", "1.0.0", artifact, "adapter", str(base), folder_digest(base))


def sources(home: Path) -> Sources:
    return Sources(str(home / "artifacts"), home / "cache", IN_TESTS)


Start = Callable[..., LocalDriver]


@pytest.fixture
async def start(home: Path, tmp_path: Path) -> AsyncIterator[Start]:
    """Make a driver whose processes behave in one way."""
    drivers: list[LocalDriver] = []

    def started(behaviour: str, health: float = 60.0) -> LocalDriver:
        command = (sys.executable, "-m", "tests.fake_model_server", behaviour, str(tmp_path))
        patience, backoff = Patience(between=0.05, health=health), Backoff(first=0.01, longest=0.02)
        options = ProcessOptions(tmp_path / "logs", patience, backoff, command=command)
        drivers.append(LocalDriver(sources(home), options))
        return drivers[-1]

    yield started
    for driver in drivers:
        await driver.close()


async def seen(driver: LocalDriver, state: str, reason: str | None = None) -> Observed:
    """Wait until the only slot is in a state."""

    async def is_so() -> bool:
        (slot,) = await driver.observed()
        return slot.state == state and reason in (None, slot.reason)

    await until(is_so, what=lambda: [served.observed for served in driver._slots.values()])
    return (await driver.observed())[0]


def starts(folder: Path) -> int:
    return len((folder / "starts").read_text())


def process_of(driver: LocalDriver) -> psutil.Process:
    (base,) = driver._bases.values()
    assert base.server is not None
    return psutil.Process(base.server.pid)


async def test_a_target_becomes_ready_once_and_its_process_ends_with_it(
    start: Start, target: Target, tmp_path: Path
) -> None:
    driver = start("talks")
    await driver.ensure(target)
    await driver.ensure(target)
    slot = await seen(driver, "ready")
    assert (slot.served, slot.reason, slot.message, slot.sha256) == ("tuned@1.0.0", "Ready", "", target.artifact.sha256)
    assert slot.address is not None
    process = process_of(driver)
    async with httpx2.AsyncClient(base_url=slot.address, trust_env=False) as client:
        assert (await client.get("/health", headers=dict(slot.headers))).status_code == 200
        assert (await client.get("/health")).status_code == 401
    await driver.remove("support", "active", 1.0)
    assert [(slot.state, slot.reason) for slot in await driver.observed()] == [("draining", "Draining")]
    await until(lambda: not process.is_running())

    async def gone() -> bool:
        return await driver.observed() == []

    await until(gone)
    assert starts(tmp_path) == 1


async def test_slots_of_one_base_share_a_process_until_the_last_leaves(
    start: Start, target: Target, tmp_path: Path
) -> None:
    driver = start("talks")
    for place in (target, replace(target, slot="target", version="1.1.0"), replace(target, deployment="other")):
        await driver.ensure(place)
    await until(
        lambda: all(served.observed.state == "ready" for served in driver._slots.values()),
        40,
        lambda: [s.observed for s in driver._slots.values()],
    )
    addresses = {slot.address for slot in await driver.observed()}
    await driver.remove("support", "active", 0.0)
    await driver.remove("support", "target", 0.0)
    await until(lambda: len(driver._slots) == 1)
    slot = await seen(driver, "ready")
    assert {slot.address} == addresses
    assert starts(tmp_path) == 1
    assert set(next(iter(driver._bases.values())).names) == {"tuned@1.0.0"}


async def test_a_killed_process_is_started_again(start: Start, target: Target, tmp_path: Path) -> None:
    driver = start("talks")
    await driver.ensure(target)
    first = await seen(driver, "ready")
    process_of(driver).kill()
    await until(lambda: starts(tmp_path) == 2)
    again = await seen(driver, "ready")
    assert again.since > first.since
    assert again.headers != first.headers


async def test_a_process_that_hangs_is_killed_and_started_again(start: Start, target: Target, tmp_path: Path) -> None:
    driver = start("talks", health=0.5)
    await driver.ensure(target)
    await seen(driver, "ready")
    hung = process_of(driver)
    os.kill(hung.pid, signal.SIGSTOP)
    await until(lambda: starts(tmp_path) >= 2)
    await seen(driver, "ready")
    assert not hung.is_running()


@pytest.mark.parametrize(
    ("behaviour", "reason", "tries"),
    [
        ("empty", "EmptyAnswer", 1), ("refuses", "SameAsBase", 1), ("port taken", "PortTaken", 1), ("garbage", "NotAnswering", 3),
        ("babbles", "NotAnswering", 3), ("dies at start", "NotAnswering", 3), ("dies while loading", "NotAnswering", 3),
    ],
)  # fmt: skip
async def test_what_cannot_be_served_fails_in_a_word_and_leaves_no_process(
    start: Start, target: Target, tmp_path: Path, behaviour: str, reason: str, tries: int
) -> None:
    driver = start(behaviour)
    await driver.ensure(target)
    slot = await seen(driver, "failed")
    assert (slot.reason, slot.address) == (reason, None)
    assert ";" in slot.message
    assert starts(tmp_path) == tries
    await until(lambda: not driver._bases)
    await driver.ensure(target)
    await until(lambda: starts(tmp_path) == 2 * tries)


def recorded(home: Path, *answers: str) -> ArtifactRef:
    """Store the answers of an evaluation."""
    lines = [
        Prediction(id=f"test:{number}", messages=ASKED, columns={}, reference="", greedy=answer, samples=(), nll=None)
        for number, answer in enumerate(answers)
    ]
    return put_lines(home, predictions=[line.model_dump() for line in lines])


async def test_answers_that_evaluation_did_not_record_are_named(start: Start, target: Target, home: Path) -> None:
    driver = start("talks")
    await driver.ensure(replace(target, predictions=recorded(home, "", "blue.", "red.", "green.")))
    slot = await seen(driver, "failed")
    assert slot.reason == "AnswerDiffers"
    assert "'red.'" in slot.message
    assert "'blue.'" in slot.message
    await driver.ensure(replace(target, predictions=recorded(home, "red.", "blue.", "red.")))
    await seen(driver, "ready")


async def test_a_model_that_does_not_fit_is_refused_before_a_process_reads_it(
    start: Start, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 100 * 2**20)
    driver = start("talks")
    await driver.ensure(target)
    slot = await seen(driver, "failed")
    assert slot.reason == "OutOfMemory"
    assert "100 MB are free" in slot.message
    assert not (tmp_path / "starts").exists()


async def test_an_installation_without_torch_says_what_to_install(
    start: Start, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    driver = start("talks")
    await driver.ensure(target)
    slot = await seen(driver, "failed")
    assert slot.reason == "DriverUnavailable"
    assert "neuroweaver[serving]" in slot.message


def changed_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (changed_byte, "DigestMismatch"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), "DigestMismatch"),
        (Path.unlink, "DigestMismatch"),
        (lambda file: (file.parent / "manifest.json").unlink(), "ArtifactMissing"),
    ],
)
def test_a_damaged_artifact_is_not_loaded(home: Path, target: Target, tmp_path: Path, damage: Any, reason: str) -> None:
    copied = ArtifactStore(str(tmp_path / "artifacts")).put(home / "adapter-0")
    assert copied.sha256 == target.artifact.sha256
    file = Path(copied.uri) / "adapter_model.safetensors"
    file.chmod(0o644)
    damage(file)
    with pytest.raises(Refused) as refused:
        verified(replace(target, artifact=copied), sources(home))
    assert refused.value.reason == reason


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
async def test_a_disk_that_is_full_during_the_download_is_told_and_the_version_serves_once_there_is_room(
    start: Start, target: Target, home: Path, tmp_path: Path
) -> None:
    remote = ArtifactStore("memory://artifacts").put(home / "adapter-0")
    with small_disk(tmp_path / "small", "16k") as disk:
        driver = start("talks")
        driver._sources = replace(sources(home), cache=disk)
        await driver.ensure(replace(target, artifact=remote))
        slot = await seen(driver, "failed")
        assert (slot.reason, "the disk is full" in slot.message) == ("FilesUnavailable", True)
        assert not (tmp_path / "starts").exists()
        assert list(disk.glob("artifacts/*/*")) == []
        remount(disk, "size=8m")
        await driver.ensure(replace(target, artifact=remote))
        await seen(driver, "ready")
        await driver.close()


def test_a_store_that_does_not_answer_is_no_fault_of_the_version(target: Target, home: Path) -> None:
    away = target.artifact.model_copy(update={"uri": f"{home}/unmounted/sha256/aa/{target.artifact.sha256}"})
    with pytest.raises(Refused) as refused:
        verified(replace(target, artifact=away), sources(home))
    assert refused.value.reason == "FilesUnavailable"


def test_an_adapter_is_not_put_on_another_base_model(home: Path, target: Target) -> None:
    with pytest.raises(Refused) as refused:
        verified(replace(target, base_model_sha256="f" * 64), sources(home))
    assert refused.value.reason == "WrongBase"
    with pytest.raises(Refused) as refused:
        verified(replace(target, base_model=str(home / "nothing")), sources(home))
    assert refused.value.reason == "BaseMissing"
