"""One contract for every store: what was put comes back whole, and what is not whole is never used."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest

from schemas.artifacts import ArtifactRef, Manifest
from services.chassis.storage.artifacts.errors import ArtifactCorrupt, ArtifactRefused, StoreAway
from services.chassis.storage.artifacts.store import ArtifactStore


def a_folder(root: Path, **files: str) -> Path:
    folder = root / "folder"
    for name, content in (files or {"a.json": "{}", "deep/er/b.txt": "wörter", "empty": ""}).items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


class Stored:
    """An artifact in a store, and a hand that can change its files behind the store's back."""

    def __init__(self, uri: str, root: Path) -> None:
        self.store = ArtifactStore(uri)
        self.folder = a_folder(root)
        self.ref = self.store.put(self.folder)
        self.fs, self.root = fsspec.url_to_fs(self.ref.uri)

    def write(self, path: str, content: bytes) -> None:
        self.fs.pipe_file(f"{self.root}/{path}", content)

    def remove(self, path: str) -> None:
        self.fs.rm_file(f"{self.root}/{path}")

    def manifest(self, change: Callable[[dict[str, object]], None]) -> ArtifactRef:
        """Rewrite the manifest; the reference that fits it."""
        content = json.loads(self.fs.cat_file(f"{self.root}/manifest.json"))
        change(content)
        raw = json.dumps(content).encode()
        self.write("manifest.json", raw)
        return self.ref.model_copy(update={"sha256": hashlib.sha256(raw).hexdigest()})


@pytest.fixture
def stored(store_uri: str, tmp_path: Path) -> Stored:
    return Stored(store_uri, tmp_path)


def test_what_was_put_comes_back_whole(stored: Stored, tmp_path: Path) -> None:
    local = stored.store.fetch(stored.ref, tmp_path / "cache")
    assert (local / "a.json").read_text() == "{}"
    assert (local / "deep/er/b.txt").read_text() == "wörter"
    assert (local / "empty").read_text() == ""
    assert stored.ref.size == len("{}") + len("wörter".encode())


def test_a_reference_names_a_place_by_the_digest_of_the_manifest_there(stored: Stored, store_uri: str) -> None:
    digest = hashlib.sha256(stored.fs.cat_file(f"{stored.root}/manifest.json")).hexdigest()
    assert stored.ref.sha256 == digest
    assert stored.ref.uri.endswith(f"/sha256/{digest[:2]}/{digest}")
    assert (
        stored.ref.uri.split("://")[0] == (store_uri.removeprefix("file://")).split("://")[0] or "://" not in stored.ref.uri
    )


def test_another_process_with_another_store_can_fetch_by_the_reference_alone(stored: Stored, tmp_path: Path) -> None:
    elsewhere = ArtifactStore(str(tmp_path / "elsewhere"))
    assert (elsewhere.fetch(stored.ref, tmp_path / "cache") / "a.json").read_text() == "{}"


def test_putting_the_same_content_twice_is_harmless_and_gives_the_same_reference(stored: Stored, tmp_path: Path) -> None:
    again = stored.store.put(a_folder(tmp_path / "again"))
    assert again == stored.ref
    stored.store.verify(again)


def test_the_order_and_times_of_files_do_not_matter_but_their_names_and_contents_do(stored: Stored, tmp_path: Path) -> None:
    other = a_folder(tmp_path / "other", **{"empty": "", "deep/er/b.txt": "wörter", "a.json": "{}"})
    assert stored.store.put(other) == stored.ref
    (other / "empty").rename(other / "void")
    assert stored.store.put(other).sha256 != stored.ref.sha256


def test_a_manifest_lists_every_file_but_itself_sorted(stored: Stored) -> None:
    manifest = stored.store.verify(stored.ref)
    assert [entry.path for entry in manifest.files] == ["a.json", "deep/er/b.txt", "empty"]


def test_nothing_temporary_is_left(stored: Stored) -> None:
    fs, root = fsspec.url_to_fs(stored.store.uri)
    fs.invalidate_cache()
    assert all("/sha256/" in path for path in fs.find(root))


def test_a_changed_file_is_named_with_both_digests_and_the_remedy(stored: Stored, tmp_path: Path) -> None:
    stored.write("a.json", b"[]")
    for use in (lambda: stored.store.verify(stored.ref), lambda: stored.store.fetch(stored.ref, tmp_path / "cache")):
        with pytest.raises(ArtifactCorrupt) as caught:
            use()
        assert caught.value.file == "a.json"
        assert hashlib.sha256(b"{}").hexdigest() in caught.value.expected
        assert hashlib.sha256(b"[]").hexdigest() in caught.value.found
        assert "run the step that made it again" in str(caught.value)


def test_a_missing_file_is_named(stored: Stored, tmp_path: Path) -> None:
    stored.remove("deep/er/b.txt")
    for use in (lambda: stored.store.verify(stored.ref), lambda: stored.store.fetch(stored.ref, tmp_path / "cache")):
        with pytest.raises(ArtifactCorrupt, match=r"deep/er/b\.txt: expected a file, found nothing"):
            use()


def test_a_file_that_the_manifest_does_not_name_is_refused(stored: Stored) -> None:
    stored.write("adapter.bin", b"pickle")
    with pytest.raises(ArtifactCorrupt, match=r"adapter\.bin: expected nothing"):
        stored.store.verify(stored.ref)


def test_a_folder_without_a_manifest_is_incomplete(stored: Stored, tmp_path: Path) -> None:
    stored.remove("manifest.json")
    for use in (lambda: stored.store.verify(stored.ref), lambda: stored.store.fetch(stored.ref, tmp_path / "cache")):
        with pytest.raises(ArtifactCorrupt, match=r"manifest\.json: expected a file, found nothing"):
            use()
    assert stored.store.put(stored.folder) == stored.ref, "putting it again completes it"
    stored.store.verify(stored.ref)


def test_a_changed_manifest_does_not_fit_its_reference(stored: Stored) -> None:
    stored.manifest(lambda content: content.update(files=[]))
    with pytest.raises(ArtifactCorrupt, match=rf"manifest.json: expected sha256 {stored.ref.sha256}, found sha256"):
        stored.store.verify(stored.ref)


@pytest.mark.parametrize("path", ["../../outside", "/etc/passwd", "a/../../b", "a\\b", "C:x", "./a", "a//b", "nul\x00", ""])
def test_a_manifest_that_leads_out_of_its_folder_is_refused_although_its_digest_fits(
    stored: Stored, tmp_path: Path, path: str
) -> None:
    def lead_out(content: dict[str, object]) -> None:
        files = content["files"]
        assert isinstance(files, list)
        files[0]["path"] = path

    ref = stored.manifest(lead_out)
    for use in (lambda: stored.store.verify(ref), lambda: stored.store.fetch(ref, tmp_path / "cache")):
        with pytest.raises(ArtifactCorrupt, match="plain relative paths"):
            use()
    assert not list((tmp_path / "cache").rglob("outside"))


def test_a_reference_with_another_size_is_refused(stored: Stored) -> None:
    with pytest.raises(ArtifactCorrupt, match="bytes in all"):
        stored.store.verify(stored.ref.model_copy(update={"size": stored.ref.size + 1}))


def test_a_corrupt_artifact_is_repaired_by_putting_it_again(stored: Stored) -> None:
    stored.write("a.json", b"[]")
    assert stored.store.put(stored.folder) == stored.ref
    stored.store.verify(stored.ref)


@pytest.mark.parametrize("store_uri", ["memory", "s3"], indirect=True)
def test_files_that_change_during_the_upload_leave_no_manifest(store_uri: str, tmp_path: Path) -> None:
    store, folder = ArtifactStore(store_uri), a_folder(tmp_path)
    verify = store.verify

    def change(ref: ArtifactRef) -> Manifest:
        """The store asks whether the artifact is there between digesting and uploading."""
        (folder / "empty").write_text("no more")
        return verify(ref)

    store.verify = change  # type: ignore[method-assign]
    with pytest.raises(ArtifactRefused, match="empty changed while it was stored"):
        store.put(folder)
    fs, root = fsspec.url_to_fs(store_uri)
    assert not [path for path in fs.find(root) if path.endswith("manifest.json")]


@pytest.mark.parametrize("store_uri", ["memory", "s3"], indirect=True)
def test_a_download_is_kept_and_checked_again_when_it_is_used_again(stored: Stored, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    local = stored.store.fetch(stored.ref, cache)
    stored.remove("a.json")
    assert stored.store.fetch(stored.ref, cache) == local
    (local / "a.json").write_text("[]")
    with pytest.raises(ArtifactCorrupt):
        stored.store.fetch(stored.ref, cache)
    stored.write("a.json", b"{}")
    assert (stored.store.fetch(stored.ref, cache) / "a.json").read_text() == "{}"
    assert not list((cache / "tmp").iterdir())


def test_what_is_removed_is_gone_and_what_was_put_again_meanwhile_is_not(stored: Stored) -> None:
    removals = stored.store.removals
    assert removals.digests() == [stored.ref.sha256]
    known = removals.examine(stored.ref.sha256)
    assert known
    assert not removals.remove(replace(known, at=known.at - timedelta(days=30))), "it was put since it was listed"
    assert removals.remove(known)
    assert removals.examine(stored.ref.sha256) is None
    with pytest.raises((ArtifactCorrupt, StoreAway)):  # of a bucket without objects nothing is known
        stored.store.verify(stored.ref)
    assert stored.store.put(stored.folder) == stored.ref
    stored.store.verify(stored.ref)
