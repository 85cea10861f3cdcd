"""References to buckets and to a hub, against servers that speak their protocols."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar
from uuid import uuid4

import fsspec
import pytest

from services.chassis.storage.references import ReferenceFault
from services.chassis.storage.references import resolve as resolve_within
from tests.allowed import IN_TESTS


def resolve(reference: str, cache: Path) -> Path:
    return resolve_within(reference, cache, IN_TESTS)


@pytest.fixture(params=["memory", "s3"])
def bucket(request: pytest.FixtureRequest) -> str:
    """A folder in an object store with two files."""
    base = "memory:/" if request.param == "memory" else request.getfixturevalue("s3")
    uri = f"{base}/{uuid4().hex}"
    fs, root = fsspec.url_to_fs(uri)
    fs.pipe_file(f"{root}/train.jsonl", b"1")
    fs.pipe_file(f"{root}/deep/test.jsonl", b"2")
    return uri


def test_a_folder_is_downloaded_once_until_it_changes(bucket: str, tmp_path: Path) -> None:
    local = resolve(bucket, tmp_path)
    assert (local / "train.jsonl").read_text() == "1"
    assert (local / "deep" / "test.jsonl").read_text() == "2"
    (local / "train.jsonl").write_text("mark")
    assert resolve(f"{bucket}/", tmp_path) == local
    assert (local / "train.jsonl").read_text() == "mark", "it was not downloaded again"
    fs, root = fsspec.url_to_fs(bucket)
    fs.pipe_file(f"{root}/train.jsonl", b"3 is longer")
    assert (resolve(bucket, tmp_path) / "train.jsonl").read_text() == "3 is longer"
    assert not list((tmp_path / "tmp").iterdir())


def test_a_single_file_keeps_its_name(bucket: str, tmp_path: Path) -> None:
    local = resolve(f"{bucket}/deep/test.jsonl", tmp_path)
    assert (local.name, local.read_text()) == ("test.jsonl", "2")


def test_nothing_there_is_a_fault_with_a_remedy(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(ReferenceFault, match="it contains no files; check bucket and path"):
        resolve(f"{bucket}-missing/x", tmp_path)


def test_an_interrupted_download_leaves_nothing_that_looks_complete(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs, _ = fsspec.url_to_fs(bucket)
    real = fs.open
    taken = 0

    def break_off(*arguments: object, **options: object) -> object:
        nonlocal taken
        taken += 1
        if taken == 2:
            raise ConnectionResetError("cable pulled")
        return real(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(fs, "open", break_off)
        with pytest.raises(ConnectionResetError):
            resolve(bucket, tmp_path)
    assert not (tmp_path / "references").exists()
    assert (resolve(bucket, tmp_path) / "deep" / "test.jsonl").read_text() == "2"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a snapshot needs: `org/tiny` exists, with one revision; `org/gated` does too, but not for us."""

    files: ClassVar = {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "pytorch_model.bin": b"pickle",
        "modeling.py": b"code",
    }
    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path in ("/api/models/org/tiny/revision/main", "/api/models/org/tiny/revision/v1"):
            return self._answer(200, json.dumps({"id": "org/tiny", "sha": self.commit}).encode())
        if path == f"/api/models/org/tiny/tree/{self.commit}":
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.files.items()
            ]
            return self._answer(200, json.dumps(entries).encode())
        if path.startswith(f"/org/tiny/resolve/{self.commit}/"):
            content = self.files[path.rpartition("/")[2]]
            etag = hashlib.sha1(content).hexdigest()
            return self._answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": self.commit})
        code = "GatedRepo" if "gated" in path else "RevisionNotFound" if "tiny" in path else "RepoNotFound"
        return self._answer(403 if code == "GatedRepo" else 404, b"{}", {"X-Error-Code": code})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def resolved(reference: str, cache: Path, **environment: str) -> str:
    """What a process whose hub is at HF_ENDPOINT says: the path, or the fault. The hub's client reads it once, at import."""
    code = (
        "import sys; from pathlib import Path; from services.chassis.storage.references import *\n"
        "from tests.allowed import IN_TESTS\n"
        "try: print(resolve(sys.argv[1], Path(sys.argv[2]), IN_TESTS))\n"
        "except ReferenceFault as fault: print(fault)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, reference, str(cache)], env={**os.environ, **environment}, text=True, capture_output=True
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


@pytest.mark.parametrize("reference", ["org/tiny", "org/tiny@v1"])
def test_a_hub_id_becomes_a_folder_without_pickles_and_code(hub: str, tmp_path: Path, reference: str) -> None:
    folder = Path(resolved(reference, tmp_path, HF_ENDPOINT=hub))
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert folder.is_relative_to(tmp_path)
    assert Path(resolved(reference, tmp_path, HF_HUB_OFFLINE="1")) == folder, "what is there needs no hub"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("org/missing", "no model org/missing on the Hugging Face hub; correct the path or the id"),
        ("org/tiny@v9", "has no revision v9; name a branch, tag or commit that exists"),
        ("org/gated", "is gated; accept its licence there and set HF_TOKEN"),
        ("org/ti--ny", "not a hub id"),
    ],
)
def test_what_the_hub_refuses_is_said_with_a_remedy(hub: str, tmp_path: Path, reference: str, words: str) -> None:
    assert words in resolved(reference, tmp_path, HF_ENDPOINT=hub)


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
def test_a_hub_that_cannot_be_reached_is_said_with_a_remedy(tmp_path: Path, environment: dict[str, str]) -> None:
    said = resolved("org/tiny", tmp_path, **environment)
    assert "the hub cannot be reached to look for model org/tiny" in said
    assert "give a path that this service can read" in said


def test_a_bucket_without_credentials_is_said_with_a_remedy(s3: str, tmp_path: Path) -> None:
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "")
    said = resolved(f"{s3}/x", tmp_path, **keys, AWS_EC2_METADATA_DISABLED="true", HOME=str(tmp_path))
    assert "access denied" in said
    assert "give this service credentials" in said
