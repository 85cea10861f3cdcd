"""What a folder must be to become an artifact, and what a local store does when it is interrupted."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from services.chassis.storage.artifacts import files
from services.chassis.storage.artifacts.errors import ArtifactCorrupt, ArtifactRefused
from services.chassis.storage.artifacts.store import ArtifactStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.json").write_text("{}")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def leftovers(store: ArtifactStore) -> list[Path]:
    return list(Path(store.uri, "tmp").glob("*"))


def test_links_are_refused_wherever_they_lead(folder: Path, store: ArtifactStore) -> None:
    (folder / "link").symlink_to("a.json")
    with pytest.raises(ArtifactRefused, match="link is a link or a device"):
        store.put(folder)


def test_a_linked_folder_is_refused(folder: Path, store: ArtifactStore, tmp_path: Path) -> None:
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(ArtifactRefused, match="link is a link or a device"):
        store.put(folder)


def test_a_device_is_refused(folder: Path, store: ArtifactStore) -> None:
    os.mkfifo(folder / "fifo")
    with pytest.raises(ArtifactRefused, match="fifo is a link or a device"):
        store.put(folder)


@pytest.mark.parametrize("name", ["a\\b", "a:b", "a\nb", b"\xff".decode(errors="surrogateescape")])
def test_names_that_are_not_plain_are_refused(folder: Path, store: ArtifactStore, name: str) -> None:
    (folder / name).write_text("")
    with pytest.raises(ArtifactRefused, match="not a plain name"):
        store.put(folder)


def test_a_file_named_like_the_manifest_is_refused(folder: Path, store: ArtifactStore) -> None:
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactRefused, match="name of the manifest"):
        store.put(folder)


def test_an_empty_folder_and_no_folder_are_refused(tmp_path: Path, store: ArtifactStore) -> None:
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(ArtifactRefused, match="contains no file"):
        store.put(tmp_path / "empty")
    with pytest.raises(ArtifactRefused, match="is not a folder"):
        store.put(tmp_path / "missing")


def test_a_link_that_replaced_a_stored_file_is_corruption_although_its_content_fits(
    folder: Path, store: ArtifactStore, tmp_path: Path
) -> None:
    ref = store.put(folder)
    for name in ("a.json", "manifest.json"):
        stored = Path(ref.uri, name)
        stored.rename(tmp_path / name)
        stored.symlink_to(tmp_path / name)
        with pytest.raises(ArtifactCorrupt, match="link"):
            store.verify(ref)
        stored.unlink()
        (tmp_path / name).rename(stored)
    store.verify(ref)


def test_an_interrupted_put_leaves_no_artifact(folder: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def power_cut(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("services.chassis.storage.artifacts.store.sync", power_cut)
    with pytest.raises(KeyboardInterrupt):
        store.put(folder)
    assert not Path(store.uri, "sha256").exists()
    assert leftovers(store) == []


def test_files_are_synced_before_the_folder_gets_its_name(
    folder: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def note_fsync(descriptor: int) -> None:
        steps.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def note_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "rename", note_rename)
    ref = store.put(folder)
    before, after = steps[: steps.index("rename")], steps[steps.index("rename") + 1 :]
    assert before[:2] == ["a.json", "manifest.json"]
    assert len(before) == 3, "the folder itself too"
    assert after == [ref.sha256[:2], "sha256"]


def test_what_killed_processes_left_is_removed_after_a_day(folder: Path, store: ArtifactStore) -> None:
    for name, age in (("old", 2 * 86_400), ("new", 60)):
        left = Path(store.uri, "tmp", name)
        left.mkdir(parents=True)
        os.utime(left, (time.time() - age, time.time() - age))
    store.put(folder)
    assert [path.name for path in leftovers(store)] == ["new"]


def test_a_relative_store_gives_absolute_references(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ref = ArtifactStore("var/store").put(folder)
    assert ref.uri.startswith(str(tmp_path / "var" / "store"))
    monkeypatch.chdir("/")
    ArtifactStore("elsewhere").verify(ref)


def test_a_file_that_changes_while_it_is_stored_is_digested_as_it_was_stored(
    folder: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = files.digest_and_size

    def grow(source: Any, target: Any = None) -> tuple[str, int]:
        (folder / "a.json").write_text("[1, 2]")
        return real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files, "digest_and_size", grow)
        ref = store.put(folder)
    store.verify(ref)
