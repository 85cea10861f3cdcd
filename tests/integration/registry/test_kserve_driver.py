"""A version is served by an InferenceService, and whatever the cluster says, a slot says so in a word and with a remedy.

The cluster is a stand-in that answers as Kubernetes and KServe document it (`tests.kubernetes_stand_in`).
"""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schemas.artifacts import ArtifactRef
from services.chassis.storage.artifacts.store import ArtifactStore
from services.registry.deploying.driver import Target
from services.registry.deploying.faults import Refused
from services.registry.deploying.files import Sources
from services.registry.deploying.kserve.backend import KserveBackend
from services.registry.deploying.kserve.manifest import manifest, name_of
from services.registry.deploying.remote.driver import Pace, RemoteDriver
from services.registry.deploying.remote.patience import Patience
from services.registry.deploying.settings import KserveSettings
from tests.allowed import IN_TESTS
from tests.kubernetes_stand_in import PATH, Cluster, status
from tests.remote_driver import seen
from tests.toy import until

QUICK = Patience(between=0.02, look=10, misses=2)
TOKEN = "token-of-the-registry"
Start = Callable[..., RemoteDriver]


@pytest.fixture
def target(tmp_path: Path) -> Target:
    folder = tmp_path / "made"
    folder.mkdir()
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / file).write_text("{}")
    artifact = ArtifactStore(str(tmp_path / "artifacts")).put(folder)
    return Target("support", "g1", "support-router", "1.0.0", artifact, "adapter", "org/base", None, driver="kserve")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    found = Cluster()
    yield found
    found.close()


@pytest.fixture
async def start(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Make a driver of the cluster."""
    monkeypatch.setenv("TOKEN_OF_TEST", TOKEN)
    drivers: list[RemoteDriver] = []

    def started(**more: Any) -> RemoteDriver:
        known = {"api": cluster.url, "token_variable": "TOKEN_OF_TEST", "namespace": "models", "storage": {str(tmp_path / "artifacts"): "pvc://artifacts"}}  # fmt: skip
        sources = Sources(str(tmp_path / "artifacts"), tmp_path / "cache", IN_TESTS)
        settings = KserveSettings.model_validate({**known, **more})
        drivers.append(RemoteDriver(KserveBackend(settings, "nw", sources, QUICK), Pace(0.01, 0.05, 0.0)))
        return drivers[-1]

    yield started
    for driver in drivers:
        await driver.close()


async def test_a_version_is_applied_becomes_ready_is_shared_by_slots_and_deleted_with_the_last(
    cluster: Cluster, target: Target, start: Start
) -> None:
    cluster.phase = "waiting"
    driver = start()
    await driver.ensure(target)
    assert "MinimumReplicasUnavailable" in (await seen(driver, "starting", "Loading")).message
    cluster.phase = "ready"
    slot = await seen(driver, "ready", "Ready")
    name = name_of(target, "nw")
    assert (slot.address, slot.called, slot.served) == (f"{cluster.url}/openai", name, "support-router@1.0.0")
    (applied,) = [query for method, path, query in cluster.asked if (method, path) == ("PATCH", f"{PATH}/{name}")]
    assert applied == {"fieldManager": ["neuroweaver"], "fieldValidation": ["Strict"]}
    assert cluster.tokens == {f"Bearer {TOKEN}"}
    await driver.ensure(replace(target, slot="g2"))
    await until(lambda: all(one.observed.state == "ready" for one in driver._slots.values()))
    await driver.remove("support", "g1", 0)
    await until(lambda: len(driver._slots) == 1)
    assert list(cluster.objects) == [name]
    await driver.remove("support", "g2", 0)
    await until(lambda: not cluster.objects)


@pytest.mark.parametrize(
    ("refusal", "reason", "words"),
    [
        (status(401, "Unauthorized", "Unauthorized"), "KeyRefused", "TOKEN_OF_TEST"),
        (status(403, "Forbidden", 'User "nw" cannot patch resource'), "Forbidden", "grant get, list, patch, create and delete"),
        ((404, b"404 page not found\n"), "KserveMissing", "install KServe"),
        (status(404, "NotFound", 'namespaces "models" not found', kind="namespaces"), "NamespaceMissing", "create it"),
        (status(409, "Conflict", 'Apply failed with 1 conflict: conflict with "kubectl": .spec.predictor.minReplicas of field'), "FieldConflict", "kubectl"),
        (status(422, "Invalid", "spec.predictor.model: Invalid value"), "ManifestRefused", "Invalid value"),
        (status(400, "BadRequest", 'strict decoding error: unknown field "spec.predictor.storageUris"'), "ManifestRefused", "KServe 0.16"),
        (status(503, "ServiceUnavailable", "the server is busy"), "NotAnswering", "tried again"),
        ((200, b"<html>"), "NotAnswering", "no InferenceService"),
    ],
)  # fmt: skip
async def test_what_the_api_refuses_is_said_with_a_remedy_and_a_cluster_that_is_mended_serves(
    cluster: Cluster, target: Target, start: Start, refusal: tuple[int, Any], reason: str, words: str
) -> None:
    cluster.refusal = refusal
    driver = start()
    await driver.ensure(target)
    slot = await seen(driver, "failed", reason)
    assert words in slot.message
    assert TOKEN not in slot.message
    cluster.refusal = None

    async def mended() -> bool:
        await driver.ensure(target)
        return (await driver.observed())[0].state == "ready"

    await until(mended)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [("ModelLoadFailed", "LoadFailed"), ("RuntimeUnhealthy", "RuntimeUnhealthy"), ("NoSupportingRuntime", "NoRuntime"), ("InvalidPredictorSpec", "ManifestRefused")],
)  # fmt: skip
async def test_what_kserve_says_of_a_service_that_fails_is_the_reason_of_its_slot(
    cluster: Cluster, target: Target, start: Start, failure: str, reason: str
) -> None:
    cluster.phase, cluster.failure = "waiting", {"reason": failure, "message": "no such file: model.safetensors"}
    driver = start()
    await driver.ensure(target)
    assert "no such file" in (await seen(driver, "failed", reason)).message
    cluster.phase, cluster.failure = "ready", None
    await seen(driver, "ready", "Ready")


async def test_a_service_goes_on_while_the_api_is_away_and_is_made_again_when_somebody_deletes_it(
    cluster: Cluster, target: Target, start: Start
) -> None:
    driver = start()
    await driver.ensure(target)
    await seen(driver, "ready", "Ready")
    cluster.refusal, asked = status(503, "ServiceUnavailable", "down"), len(cluster.asked)
    await until(lambda: len(cluster.asked) > asked + 5)
    assert (await driver.observed())[0].state == "ready"
    cluster.chats = False
    await seen(driver, "failed", "NotAnswering")
    cluster.refusal, cluster.chats = None, True
    await seen(driver, "ready", "Ready")
    cluster.objects.clear()
    await until(lambda: cluster.objects)
    await seen(driver, "ready", "Ready")
    cluster.phase = "waiting"
    assert "MinimumReplicasUnavailable" in (await seen(driver, "starting", "Loading")).message


async def test_objects_of_others_are_never_touched_and_leftovers_of_this_registry_are_deleted(
    cluster: Cluster, target: Target, start: Start
) -> None:
    name = name_of(target, "nw")
    foreign = {"metadata": {"name": name, "uid": f"uid-{name}", "generation": 1, "labels": {}}}
    cluster.objects[name] = foreign
    cluster.objects["old"] = {
        "metadata": {"name": "old", "uid": "uid-old", "generation": 1, "labels": {"neuroweaver/owner": "nw"}}
    }
    cluster.objects["theirs"] = {
        "metadata": {"name": "theirs", "uid": "u", "generation": 1, "labels": {"neuroweaver/owner": "other"}}
    }
    driver = start()
    await driver.ensure(target)
    assert "made by somebody else" in (await seen(driver, "failed", "ForeignObject")).message

    async def swept() -> bool:
        await driver.observed()
        return "old" not in cluster.objects

    await until(swept)
    await driver.remove("support", "g1", 0)
    await until(lambda: not driver._leaving)
    assert cluster.objects.keys() == {name, "theirs"}
    assert cluster.objects[name] == foreign


async def test_a_registry_outside_of_a_cluster_says_what_it_needs(
    target: Target, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    driver = start(api=None)
    await driver.ensure(target)
    assert "set `api`" in (await seen(driver, "failed", "NoCluster")).message


def test_the_object_of_an_adapter_brings_it_beside_its_base_model_and_that_of_a_model_brings_it_alone() -> None:
    artifact = ArtifactRef(uri="s3://bucket/artifacts/ab", sha256="a" * 64, size=1)
    adapter = Target("support", "g1", "Support.Router_" + "x" * 40, "1.0.0", artifact, "adapter", "org/base", None)
    settings = KserveSettings(
        resources={"nvidia.com/gpu": "1"}, runtime="own", service_account="reader", args=("--max-model-len=4096",)
    )
    made = manifest(adapter, settings, "nw")
    name, predictor = made["metadata"]["name"], made["spec"]["predictor"]
    assert (len(name) <= 40, name.startswith("nw-support-router-x")) == (True, True)
    assert [one["uri"] for one in predictor["storageUris"]] == ["hf://org/base", "s3://bucket/artifacts/ab"]
    assert predictor["model"]["args"] == [
        "--backend=vllm", f"--model_name={name}-base", "--model_dir=/mnt/models/base", "--enable-lora",
        f"--lora-modules={name}=/mnt/models/adapter", "--max-model-len=4096",
    ]  # fmt: skip
    assert predictor["model"]["resources"]["limits"] == {"nvidia.com/gpu": "1"}
    assert (predictor["model"]["runtime"], predictor["serviceAccountName"]) == ("own", "reader")
    whole = manifest(replace(adapter, kind="model"), settings, "nw")["spec"]["predictor"]
    assert (whole["model"]["storageUri"], "storageUris" in whole) == ("s3://bucket/artifacts/ab", False)
    for wrong in (
        replace(adapter, base_model="/data/base"),
        replace(adapter, artifact=artifact.model_copy(update={"uri": "/srv/x"})),
    ):
        with pytest.raises(Refused, match="do not say how the cluster reads"):
            manifest(wrong, settings, "nw")
    mapped = KserveSettings(
        storage={"s3://bucket": "s3://mirror", "/srv": "pvc://data/"}, base_models={"org/base": "pvc://data/base"}
    )
    assert manifest(adapter, mapped, "nw")["spec"]["predictor"]["storageUris"][0]["uri"] == "pvc://data/base"
    assert manifest(adapter, mapped, "nw")["spec"]["predictor"]["storageUris"][1]["uri"] == "s3://mirror/artifacts/ab"
