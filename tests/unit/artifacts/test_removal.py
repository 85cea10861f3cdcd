"""What is removed from a store is what was not put again, whoever is killed and whatever else lies there."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from schemas.artifacts import ArtifactRef
from services.chassis.storage.artifacts import removal
from services.chassis.storage.artifacts.errors import MANIFEST, StoreAway
from services.chassis.storage.artifacts.removal import Removals, StoredArtifact
from services.chassis.storage.artifacts.store import ArtifactStore


class Shop:
    """A store with one artifact."""

    def __init__(self, uri: str, root: Path) -> None:
        self.store, self.folder = ArtifactStore(uri), root / "made"
        (self.folder / "deep").mkdir(parents=True)
        (self.folder / "deep" / "weights").write_text("weights")
        (self.folder / "config.json").write_text("{}")
        self.ref = self.store.put(self.folder)
        self.root = root

    @property
    def removals(self) -> Removals:
        return self.store.removals

    @property
    def known(self) -> StoredArtifact:
        known = self.removals.examine(self.ref.sha256)
        assert known
        return known

    def write(self, path: str, content: bytes) -> None:
        folder, _, _ = path.rpartition("/")
        self.removals._fs.makedirs(f"{self.store._root}/{folder}", exist_ok=True)
        self.removals._fs.pipe_file(f"{self.store._root}/{path}", content)

    def put(self) -> ArtifactRef:
        """Another process puts the same files."""
        return ArtifactStore(self.store.uri).put(self.folder)

    def is_there(self) -> bool:
        try:
            self.store.verify(self.ref)
        except Exception:
            return False
        return True


@pytest.fixture(params=["local", "memory"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Shop:
    return Shop(str(tmp_path / "store") if request.param == "local" else f"memory://{uuid4().hex}", tmp_path)


def test_an_artifact_is_removed_whole_and_can_be_put_again(shop: Shop) -> None:
    assert shop.removals.digests() == [shop.ref.sha256]
    assert shop.removals.remove(shop.known)
    assert not shop.is_there()
    assert shop.removals.digests() == []
    assert not shop.removals.begun(shop.ref.sha256)
    assert shop.put() == shop.ref
    assert shop.is_there()


def test_what_was_put_again_since_it_was_listed_stays(shop: Shop) -> None:
    known = shop.known
    shop.put()
    assert shop.known.at > known.at
    assert not shop.removals.remove(known)
    assert shop.is_there()
    assert not shop.removals.begun(shop.ref.sha256)


def at(place: str, turn: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `turn` happen once, just before a removal calls `place`."""
    original, turns = getattr(Removals, place), [turn]

    def interrupted(self: Removals, *given: Any) -> Any:
        if turns:
            turns.pop()()
        return original(self, *given)

    monkeypatch.setattr(Removals, place, interrupted)


@pytest.mark.parametrize("place", ["_known", "_take"])
def test_who_puts_an_artifact_while_it_is_removed_has_it_afterwards(
    shop: Shop, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process cannot go on before the removal has ended, so it runs until it would wait, and again afterwards."""
    known, waited = shop.known, []

    def put() -> None:
        with monkeypatch.context() as impatient:
            impatient.setattr(removal, "_PATIENCE_SECONDS", -1.0)
            with pytest.raises(StoreAway, match="has not ended"):
                shop.put()
            waited.append(True)

    at(place, put, monkeypatch)
    shop.removals.remove(known)
    assert waited
    shop.put()
    assert shop.is_there()


def test_files_that_were_put_in_the_middle_of_a_removal_are_put_once_more(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever puts found no mark, and then the artifact goes with its mark before the last look."""
    known = shop.known
    began, turns = Removals.begun, [lambda: None, lambda: shop.removals._take(known.sha256, _manifest_of(shop))]

    def looks(self: Removals, sha256: str) -> bool:
        if turns:
            turns.pop(0)()
        return began(self, sha256)

    monkeypatch.setattr(Removals, "begun", looks)
    shop.put()
    assert shop.is_there()


def test_of_two_puts_and_a_removal_at_once_each_put_has_its_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever thread goes first: the removal means what was put before."""
    shop = Shop(str(tmp_path / "store"), tmp_path)
    monkeypatch.setattr(removal, "_LOOK_SECONDS", 0.001)
    with ThreadPoolExecutor(3) as threads:
        for _ in range(20):
            known = shop.known
            turns = [threads.submit(turn) for turn in (shop.put, lambda known=known: shop.removals.remove(known), shop.put)]
            assert [turn.result() for turn in turns][::2] == [shop.ref] * 2
            assert shop.is_there()


def test_what_a_killed_process_began_is_finished_and_until_then_nobody_puts_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.write(f"removing/{shop.ref.sha256}", _raw(shop))
    shop.removals._fs.rm_file(f"{shop.removals._folder(shop.ref.sha256)}/{MANIFEST}")
    monkeypatch.setattr(removal, "_PATIENCE_SECONDS", -1.0)
    with pytest.raises(StoreAway, match="neuroweaver retention"):
        shop.put()
    shop.removals.finish()
    assert not shop.removals.begun(shop.ref.sha256)
    shop.put()
    assert shop.is_there()


def test_a_mark_of_an_artifact_that_is_whole_is_taken_away(shop: Shop) -> None:
    shop.write(f"removing/{shop.ref.sha256}", _raw(shop))
    shop.write("removing/notes", b"of somebody")
    shop.removals.finish()
    assert shop.is_there()
    assert not shop.removals.begun(shop.ref.sha256)
    assert shop.removals.begun("notes")


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (f"sha256/aa/{'a' * 64}/{MANIFEST}", b"{}"),
        (f"sha256/aa/{'a' * 64}/weights", b"w"),
        (f"sha256/bb/{'a' * 64}/{MANIFEST}", b"{}"),
        ("sha256/aa/notes/file", b"w"),
        ("theirs/file", b"w"),
    ],
)
def test_what_is_no_artifact_of_ours_is_none_to_remove(shop: Shop, path: str, content: bytes) -> None:
    shop.write(path, content)
    found = [shop.removals.examine(digest) for digest in shop.removals.digests()]
    assert [one.sha256 for one in found if one] == [shop.ref.sha256]


def test_an_artifact_with_a_file_more_or_less_is_left_to_a_person(shop: Shop) -> None:
    folder = f"sha256/{shop.ref.sha256[:2]}/{shop.ref.sha256}"
    known = shop.known
    shop.write(f"{folder}/notes.txt", b"do not lose me")
    assert shop.removals.examine(shop.ref.sha256) is None
    assert not shop.removals.remove(known)
    shop.removals._fs.rm_file(f"{shop.store._root}/{folder}/notes.txt")
    assert shop.removals.remove(known)


def test_links_are_not_followed(tmp_path: Path) -> None:
    shop = Shop(str(tmp_path / "store"), tmp_path)
    outside = Path(shop.ref.uri).rename(tmp_path / "outside")
    Path(shop.ref.uri).symlink_to(outside)
    assert shop.removals.digests() == []
    assert (outside / "config.json").exists()


def test_a_store_that_does_not_exist_yet_has_nothing(tmp_path: Path) -> None:
    removals = ArtifactStore(str(tmp_path / "nowhere")).removals
    assert removals.digests() == []
    removals.finish()
    assert not (tmp_path / "nowhere").exists()


def _manifest_of(shop: Shop) -> Any:
    found = removal._manifest(
        shop.removals._fs.cat_file(f"{shop.removals._folder(shop.ref.sha256)}/{MANIFEST}"), shop.ref.sha256
    )
    assert found
    return found


def _raw(shop: Shop) -> bytes:
    raw = shop.removals._fs.cat_file(f"{shop.removals._folder(shop.ref.sha256)}/{MANIFEST}")
    assert isinstance(raw, bytes)
    return raw
