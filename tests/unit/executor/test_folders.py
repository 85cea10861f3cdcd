"""Names from events become folders that cannot lead anywhere else."""

from pathlib import Path

import pytest

from services.chassis.executor.folders import checkpoints_of, folder_name, log_of


@pytest.mark.parametrize("name", ["", "..", ".", ".hidden", "a/b", "/etc", "a\x00b", "job-1", "v1.2"])
def test_no_name_leaves_its_parent_or_becomes_two_folders(name: str) -> None:
    folder = folder_name(name)
    assert Path("/root", folder).resolve().parent == Path("/root")
    assert "/" not in folder


def test_different_names_give_different_folders() -> None:
    names = ["..", "%2E.", ".", "%2E", "a", "A", "a.b", "a%2Eb"]
    assert len({folder_name(name) for name in names}) == len(names)


def test_ordinary_names_stay_as_they_are(tmp_path: Path) -> None:
    assert checkpoints_of(tmp_path, "job-1", "train") == tmp_path / "checkpoints" / "job-1" / "train"
    assert log_of(tmp_path, "trainer", "job-1", "train", 2) == tmp_path / "logs" / "trainer" / "job-1" / "train" / "2.log"
