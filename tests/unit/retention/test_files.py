"""Files go whole, without following links, and never what somebody has used since."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schemas.artifacts import ArtifactRef
from services.chassis.executor.retention import downloads, erased_copies
from services.chassis.storage.artifacts.erased import Erasures, Remaining
from services.chassis.storage.retention.decision import RemovalCandidate, expired
from services.chassis.storage.retention.files import Files, measured, subfolders
from services.chassis.storage.retention.policy import RetentionRule
from services.chassis.storage.retention.run import RemovedAmount
from services.devstack.retention import LongLogs

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def age(path: Path, at: datetime = LONG_AGO) -> None:
    """Have the path, and all below, last changed then; links themselves, not what they lead to."""
    for one in (*path.rglob("*"), path) if path.is_dir() and not path.is_symlink() else (path,):
        os.utime(one, (at.timestamp(), at.timestamp()), follow_symlinks=False)


def folder(path: Path, size: int = 10) -> Path:
    path.mkdir(parents=True)
    (path / "data").write_bytes(bytes(size))
    age(path)
    return path


def there(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def remover(root: Path) -> Files:
    async def find() -> Sequence[RemovalCandidate]:
        return [one for name in there(root) if (one := measured(root / name))]

    return Files("things", RetentionRule(timedelta(days=1)), find)


async def test_an_old_folder_goes_with_all_that_is_in_it_and_a_young_one_stays(tmp_path: Path) -> None:
    folder(tmp_path / "old" / "deep")
    folder(tmp_path / "young")
    (tmp_path / "young" / "more").touch()
    age(tmp_path / "old")
    assert await remover(tmp_path).apply(dry=True) == RemovedAmount(1, 10)
    assert (tmp_path / "old").exists(), "a dry run removes nothing"
    assert await remover(tmp_path).apply(dry=False) == RemovedAmount(1, 10)
    assert there(tmp_path) == ["young"]


async def test_a_link_goes_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    precious = folder(tmp_path / "elsewhere" / "precious")
    root = tmp_path / "root"
    inside = folder(root / "thing")
    (root / "link").symlink_to(precious)
    (inside / "link").symlink_to(precious)
    age(root / "link")
    age(inside)
    assert subfolders(root) == [inside], "a link is no folder of ours"
    assert (await remover(root).apply(dry=False)).count == 2
    assert there(root) == []
    assert (precious / "data").exists()


async def test_what_was_used_since_it_was_found_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = folder(tmp_path / "used")

    def used_meanwhile(*arguments: object) -> list[RemovalCandidate]:
        gone = expired(*arguments)  # type: ignore[arg-type]
        os.utime(used)
        return gone

    monkeypatch.setattr("services.chassis.storage.retention.files.expired", used_meanwhile)
    assert await remover(tmp_path).apply(dry=False) == RemovedAmount(0, 0)
    assert (used / "data").exists()


async def test_what_somebody_else_removed_meanwhile_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = folder(tmp_path / "gone")

    def removed_meanwhile(*arguments: object) -> list[RemovalCandidate]:
        found = expired(*arguments)  # type: ignore[arg-type]
        gone.rename(tmp_path / "by somebody else")
        return found

    monkeypatch.setattr("services.chassis.storage.retention.files.expired", removed_meanwhile)
    assert await remover(tmp_path).apply(dry=False) == RemovedAmount(0, 0)


def test_downloads_are_known_one_by_one_and_what_a_running_step_may_use_is_referenced(tmp_path: Path) -> None:
    for name in ("references/a", "hub/models--b", "datasets/c", "artifacts/12/12ab", "tmp/half-made"):
        folder(tmp_path / name)
    (tmp_path / "jars").mkdir()
    used = folder(tmp_path / "artifacts" / "12" / "used")
    os.utime(used)
    began = datetime.now(UTC) - timedelta(hours=1)
    found = {one.path.name: one.referenced for one in downloads(tmp_path, began)}
    assert found == {"a": False, "models--b": False, "c": False, "12ab": False, "half-made": False, "used": True}
    assert not any(one.referenced for one in downloads(tmp_path, None))


async def test_a_long_log_is_put_aside_while_its_server_goes_on_writing(tmp_path: Path) -> None:
    log = tmp_path / "kafka.log"
    with log.open("a") as server:
        server.write("x" * 100)
        server.flush()
        assert await LongLogs(tmp_path, 50).apply(dry=True) == RemovedAmount(1, 100)
        assert await LongLogs(tmp_path, 50).apply(dry=False) == RemovedAmount(1, 100)
        server.write("y")
    assert log.read_text() == "y"
    assert (tmp_path / "kafka.old.log").read_text() == "x" * 100
    assert await LongLogs(tmp_path, 50).apply(dry=False) == RemovedAmount(0, 0)


def test_copies_of_artifacts_from_which_rows_were_erased_go_at_once(tmp_path: Path) -> None:
    cache, (whole, cut) = tmp_path / "cache", (character * 64 for character in "ab")
    for digest in (whole, cut):
        folder(cache / "artifacts" / digest[:2] / digest)
    remains = ArtifactRef(uri="/r", sha256="c" * 64, size=1)
    Erasures(str(tmp_path / "store")).leave(cut, Remaining(ref=remains, rows=1))
    found = erased_copies(cache, str(tmp_path / "store"))
    assert [one.path.name for one in expired(RetentionRule(timedelta()), datetime.now(UTC), found)] == [cut]
    assert erased_copies(tmp_path / "none", "memory://nowhere") == [], "without copies no store is asked"
