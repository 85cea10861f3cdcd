"""Rows that are erased from an artifact are in no file of its store any more, wherever the erasure was interrupted; what was not erased stays."""

import hashlib
import json
from pathlib import Path

import fsspec
import pytest

from schemas.artifacts import ArtifactRef
from services.chassis.executor.inputs import corrupt_input
from services.chassis.storage.artifacts import erasing
from services.chassis.storage.artifacts.erased import Erasures
from services.chassis.storage.artifacts.erasing import erase_rows, erased_ids
from services.chassis.storage.artifacts.errors import ArtifactErased, ArtifactRefused
from services.chassis.storage.artifacts.store import ArtifactStore

DIGESTS = "".join(f"{str(number) * 64} row-{number}\n" for number in range(1, 4))
PAGE = '<h1>Step</h1><section aria-labelledby="samples">\n<h2>Samples</h2> secret-1\n</section><section>rest</section>'


class Stored:
    """A store with one artifact of three rows."""

    def __init__(self, uri: str, home: Path) -> None:
        self.store, self.erasures, self.cache, self.home = ArtifactStore(uri), Erasures(uri), home / "cache", home
        self.ref = self.put()

    def put(self) -> ArtifactRef:
        folder = self.home / "folder"
        folder.mkdir(exist_ok=True)
        lines = [json.dumps({"id": f"row-{number}", "completion": f"secret-{number}"}) for number in range(1, 4)]
        (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
        (folder / "train.rows.txt").write_text(DIGESTS)
        (folder / "report.html").write_text(PAGE)
        return self.store.put(folder)

    def erase(self, *rows: int) -> None:
        erase_rows(self.store, self.ref, [f"row-{number}" for number in rows], self.cache)

    def rows(self) -> list[str]:
        folder = self.store.fetch_remaining(self.ref, self.cache)
        return [json.loads(line)["completion"] for line in (folder / "train.jsonl").read_text().splitlines()]

    def holds(self, secret: str) -> bool:
        """Whether any file of the store, or of the cache, has the text."""
        fs, root = fsspec.url_to_fs(self.store.uri)
        cached = (path.read_bytes() for path in self.cache.rglob("*") if path.is_file())
        return any(secret.encode() in content for content in (*map(fs.cat_file, fs.find(root)), *cached))


pytestmark = pytest.mark.parametrize("store_uri", ["local", "s3"], indirect=True)


@pytest.fixture
def stored(store_uri: str, tmp_path: Path) -> Stored:
    return Stored(store_uri, tmp_path)


def test_the_bytes_are_gone_and_the_identity_stays(stored: Stored) -> None:
    stored.erase(1, 2)
    assert stored.rows() == ["secret-3"]
    assert not stored.holds("secret-1")
    assert not stored.holds("secret-2")
    fs, root = fsspec.url_to_fs(stored.ref.uri)
    assert hashlib.sha256(fs.cat_file(f"{root}/manifest.json")).hexdigest() == stored.ref.sha256
    remaining = stored.erasures.remaining(stored.ref.sha256)
    assert remaining is not None
    assert remaining.rows == 2
    folder = stored.store.fetch(remaining.ref, stored.cache)
    assert (folder / "train.rows.txt").read_text() == DIGESTS, "audits find the digests of erased rows"
    assert erased_ids(folder) == ["row-1", "row-2"]
    assert (folder / "report.html").read_text() == "<h1>Step</h1><section>rest</section>"


def test_what_was_erased_cannot_be_read_or_stored_again_under_its_digest(stored: Stored) -> None:
    stored.erase(1)
    for read in (lambda: stored.store.fetch(stored.ref, stored.cache), lambda: stored.store.verify(stored.ref), stored.put):
        with pytest.raises(ArtifactErased, match="rows of it were erased"):
            read()
    assert not stored.holds("secret-1")


def test_a_further_erasure_leads_from_the_first_artifact_to_what_remains_now(stored: Stored) -> None:
    stored.erase(1)
    stored.erase(2)
    stored.erase(2)
    assert stored.rows() == ["secret-3"]
    assert not stored.holds("secret-2")
    remaining = stored.erasures.remaining(stored.ref.sha256)
    assert remaining is not None
    assert (remaining.rows, len(stored.erasures.artifacts())) == (2, 2)


def test_an_artifact_without_such_a_row_stays_as_it_is(stored: Stored) -> None:
    (stored.home / "folder" / "report.html").unlink()
    other = stored.store.put(stored.home / "folder")
    assert erase_rows(stored.store, other, ["row-9"], stored.cache) is None
    stored.store.verify(other)


def test_an_artifact_of_another_store_is_refused(stored: Stored, tmp_path: Path) -> None:
    elsewhere = ArtifactStore(str(tmp_path / "elsewhere"))
    with pytest.raises(ArtifactRefused, match="another store"):
        erase_rows(elsewhere, stored.ref, ["row-1"], stored.cache)


@pytest.mark.parametrize("act", ["leave", "put", "_remove_bytes"])
def test_an_erasure_that_was_interrupted_is_made_good_by_the_next(
    stored: Stored, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    owner = {"leave": Erasures, "put": ArtifactStore, "_remove_bytes": erasing}[act]
    with monkeypatch.context() as patch:
        patch.setattr(owner, act, die)
        with pytest.raises(Killed):
            stored.erase(1)
    assert "secret-2" in stored.rows(), "what is not erased can be read at any time"
    stored.erase(1)
    assert stored.rows() == ["secret-2", "secret-3"]
    assert not stored.holds("secret-1")


def test_rows_that_are_marked_are_known_to_every_reader_of_the_store(stored: Stored, store_uri: str) -> None:
    assert Erasures(store_uri).rows() == frozenset()
    stored.erasures.mark(["1" * 64, "2" * 64])
    stored.erasures.mark(["2" * 64])
    assert Erasures(store_uri).rows() == {"1" * 64, "2" * 64}


def test_an_erasure_while_a_step_reads_is_no_fault_of_the_job(stored: Stored) -> None:
    stored.erase(1)
    with pytest.raises(ArtifactErased) as erased:
        stored.store.fetch(stored.ref, stored.cache)
    assert corrupt_input(erased.value, {"dataset": stored.ref}) is None
