"""What an object store answers, and what it does not: altered on the way, altered for good, missing, away."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from schemas.artifacts import ArtifactRef
from services.chassis.storage.artifacts.errors import ArtifactCorrupt, ArtifactMissing, StoreAway
from services.chassis.storage.artifacts.store import ArtifactStore


class EndpointConnectionError(Exception):
    """As botocore has it."""


EndpointConnectionError.__module__ = "botocore.exceptions"


@pytest.fixture
def memory() -> Iterator[Any]:
    memory = fsspec.filesystem("memory")
    yield memory
    memory.store.clear()


@pytest.fixture
def store(memory: Any) -> ArtifactStore:
    return ArtifactStore("memory://bucket/artifacts")


@pytest.fixture
def artifact(store: ArtifactStore, tmp_path: Path) -> ArtifactRef:
    for name in ("one", "two"):
        source = tmp_path / name
        source.mkdir()
        (source / "data").write_text(name)
        ref = store.put(source)
    return ref


def test_what_was_altered_on_its_way_is_fetched_once_more(
    memory: Any, store: ArtifactStore, artifact: ArtifactRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, answers = type(memory).cat_file, [b"{}"]

    def cat_file(self: Any, path: str, **more: Any) -> Any:
        return answers.pop() if answers else real(self, path, **more)

    monkeypatch.setattr(type(memory), "cat_file", cat_file)
    assert (store.fetch(artifact, tmp_path / "cache") / "data").read_text() == "two"
    assert not answers


def test_what_is_altered_for_good_is_said_with_both_digests(
    memory: Any, store: ArtifactStore, artifact: ArtifactRef, tmp_path: Path
) -> None:
    memory.pipe_file(f"{artifact.uri}/data".removeprefix("memory://"), b"twa")
    with pytest.raises(ArtifactCorrupt, match=r"file data: expected sha256 [0-9a-f]{64} of 3 bytes, found sha256"):
        store.fetch(artifact, tmp_path / "cache")


def test_a_whole_copy_in_the_cache_will_do(
    memory: Any, store: ArtifactStore, artifact: ArtifactRef, tmp_path: Path
) -> None:
    first = store.fetch(artifact, tmp_path / "cache")
    memory.pipe_file(f"{artifact.uri}/data".removeprefix("memory://"), b"twa")
    assert store.fetch(artifact, tmp_path / "cache") == first


def test_a_missing_artifact_is_missing_and_a_missing_store_is_away(
    memory: Any, store: ArtifactStore, artifact: ArtifactRef, tmp_path: Path
) -> None:
    memory.rm(artifact.uri.removeprefix("memory://"), recursive=True)
    with pytest.raises(ArtifactMissing, match="the artifact is missing"):
        store.fetch(artifact, tmp_path / "cache")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    with pytest.raises(StoreAway, match="NEUROWEAVER_ARTIFACTS"):
        store.fetch(artifact, tmp_path / "cache")


def test_a_store_that_does_not_answer_is_away_and_no_artifact_is_blamed(
    memory: Any, store: ArtifactStore, artifact: ArtifactRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_answer(*_: Any, **__: Any) -> None:
        raise EndpointConnectionError("Could not connect to the endpoint URL")

    monkeypatch.setattr(type(memory), "cat_file", no_answer)
    for ask in (lambda: store.fetch(artifact, tmp_path / "cache"), lambda: store.verify(artifact)):
        with pytest.raises(StoreAway, match="EndpointConnectionError: Could not connect"):
            ask()
