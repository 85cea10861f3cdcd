"""However a library words it, a full disk is recognised, with the folder and what was wanted; nothing half written stays."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import save_file

from services.chassis.executor.child import UserFault
from services.chassis.storage.artifacts.store import ArtifactStore
from services.chassis.storage.references import folder_digest, resolve
from services.chassis.storage.stores import FULL, StorageFailure, unwritable
from services.trainer.engine.checkpoints import Checkpoints
from tests.allowed import IN_TESTS
from tests.faults.small_disk import fill, small_disk, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

MEGABYTE = 1_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small", "1m") as folder:
        yield folder


def sqlite(folder: Path) -> None:
    with sqlite3.connect(folder / "db") as database:
        database.execute("CREATE TABLE t AS SELECT randomblob(2000000) AS b")


def parquet(folder: Path) -> None:
    pq.write_table(pa.table({"a": np.random.default_rng(0).random(400_000)}), folder / "t.parquet")


WRITERS: dict[str, Callable[[Path], object]] = {
    "a file": lambda folder: (folder / "f").write_bytes(bytes(2 * MEGABYTE)),
    "JSON": lambda folder: (folder / "f").write_text(json.dumps("x" * 2 * MEGABYTE)),
    "safetensors": lambda folder: save_file({"a": np.zeros(MEGABYTE)}, folder / "f.safetensors"),
    "PyTorch": lambda folder: torch.save(torch.zeros(MEGABYTE), folder / "f.pt"),
    "SQLite": sqlite,
    "Parquet": parquet,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_the_error_of_a_library_is_recognised(disk: Path, writer: str) -> None:
    with pytest.raises(Exception) as raised:
        WRITERS[writer](disk)
    found = unwritable(raised.value, [disk])
    assert found is not None
    assert (found.why, Path(found.place)) == (FULL, disk)


def test_an_error_that_a_library_or_we_wrapped_is_recognised(disk: Path) -> None:
    def wrapped() -> None:
        try:
            (disk / "f").write_bytes(bytes(2 * MEGABYTE))
        except OSError as error:
            raise UserFault from error

    with pytest.raises(UserFault) as raised:
        wrapped()
    assert unwritable(raised.value, [disk]) is not None


def test_a_checkpoint_without_room_leaves_the_earlier_one_and_nothing_half_written(disk: Path) -> None:
    checkpoints = Checkpoints(disk / "step", disk / "step" / "1" / "lease", "recipe")
    checkpoints.save(1, {"weights": {"a": torch.zeros(1000)}}, [{"step": 1}])
    with pytest.raises(StorageFailure) as raised:
        checkpoints.save(2, {"weights": {"a": torch.zeros(MEGABYTE)}}, [])
    found = raised.value.unwritable
    assert (found.why, found.wanted) == (FULL, 4 * MEGABYTE)
    assert found.free is not None
    assert found.free > MEGABYTE / 2, "it is measured when what was half written is gone"
    assert [path.name for path in checkpoints.own.iterdir()] == ["step-00000001"]
    newest = checkpoints.newest()
    assert newest is not None
    assert newest.step == 1


def test_an_artifact_without_room_leaves_nothing_behind(disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "data").write_bytes(bytes(2 * MEGABYTE))
    with pytest.raises(StorageFailure) as raised:
        ArtifactStore(str(disk / "artifacts")).put(source)
    assert (raised.value.unwritable.place, raised.value.unwritable.wanted) == (str(disk / "artifacts"), 2 * MEGABYTE)
    assert not [path for path in disk.rglob("*") if path.is_file()]


def test_a_download_without_room_leaves_nothing_behind(disk: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/bucket/data", bytes(2 * MEGABYTE))
    with pytest.raises(StorageFailure) as raised:
        resolve("memory://bucket/data", disk, IN_TESTS)
    assert (raised.value.unwritable.place, raised.value.unwritable.wanted) == (str(disk), 2 * MEGABYTE)
    assert not [path for path in disk.rglob("*") if path.is_file()]


def test_a_digest_that_cannot_be_remembered_says_so_and_leaves_nothing_behind(disk: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "data").write_bytes(b"x")
    time.sleep(2.1)  # what changed less than two seconds ago is not remembered
    fill(disk / "filler")
    with pytest.raises(StorageFailure):
        folder_digest(source, disk)
    assert {path.name for path in disk.rglob("*") if path.is_file()} == {"filler"}
