"""A reference becomes a path, or words that a person can act on."""

import os
import time
from pathlib import Path

import pytest

from services.chassis.storage.references import ReferenceFault, folder_digest
from services.chassis.storage.references import resolve as resolve_within
from tests.allowed import IN_TESTS


def resolve(reference: str, cache: Path) -> Path:
    return resolve_within(reference, cache, IN_TESTS)


def test_a_local_folder_or_file_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.jsonl").write_text("{}")
    monkeypatch.chdir(tmp_path)
    for reference in (str(tmp_path), f"file://{tmp_path}"):
        assert resolve(reference, tmp_path / "cache") == tmp_path
    assert resolve("data.jsonl", tmp_path / "cache") == tmp_path / "data.jsonl"
    assert resolve("./data.jsonl", tmp_path / "cache") == tmp_path / "data.jsonl"


@pytest.mark.parametrize(
    "reference",
    ["{folder}/missing", "./missing", "../missing", "file://{folder}/no/such", "with space", "", "a/b/c"],
)
def test_what_is_not_there_is_said_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str) -> None:
    monkeypatch.chdir(tmp_path)
    reference = reference.format(folder=tmp_path)
    with pytest.raises(ReferenceFault, match="no such file or folder") as caught:
        resolve(reference, tmp_path)
    assert caught.value.remedy.startswith("give a path")


@pytest.mark.parametrize("reference", ["x" * 2000, "/" + "x" * 300, "~nobody-here/x", "a\x00b"])
def test_what_no_file_system_can_look_up_is_a_fault_and_not_a_crash(tmp_path: Path, reference: str) -> None:
    with pytest.raises(ReferenceFault):
        resolve(reference, tmp_path)


def test_an_unknown_scheme_names_those_that_work(tmp_path: Path) -> None:
    with pytest.raises(ReferenceFault, match="the scheme nope:// is not among those that jobs may name"):
        resolve("nope://bucket/x", tmp_path)


def test_chained_urls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReferenceFault, match="chained"):
        resolve("zip://etc/passwd::file:///tmp/x.zip", tmp_path)


# ---------------------------------------------------------------- digests of folders


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    for name, content in (("config.json", "{}"), ("deep/weights", "0123")):
        (folder / name).write_text(content)
        os.utime(folder / name, (1, 1))
    return folder


def settle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if an hour had passed since the last change."""
    later = time.time_ns() + 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)


def test_a_digest_depends_on_names_and_contents_alone(model: Path, tmp_path: Path) -> None:
    digest = folder_digest(model)
    moved = tmp_path / "moved"
    model.rename(moved)
    os.utime(moved / "config.json")
    assert folder_digest(moved) == digest
    (moved / "config.json").write_text("[]")
    changed = folder_digest(moved)
    (moved / "config.json").write_text("{}")
    (moved / "deep" / "weights").rename(moved / "weights")
    assert len({digest, changed, folder_digest(moved)}) == 3


def test_hidden_files_do_not_matter_and_links_count_as_what_they_lead_to(model: Path, tmp_path: Path) -> None:
    digest = folder_digest(model)
    (model / ".cache").mkdir()
    (model / ".cache" / "x").write_text("x")
    (model / "config.json").rename(tmp_path / "blob")
    (model / "config.json").symlink_to(tmp_path / "blob")
    assert folder_digest(model) == digest


def test_a_single_file_has_a_digest_too(model: Path) -> None:
    assert len(folder_digest(model / "config.json")) == 64


def test_a_folder_that_has_not_changed_is_not_read_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(model, monkeypatch)
    digest = folder_digest(model, tmp_path / "cache")
    monkeypatch.setattr("services.chassis.storage.references.entry_of", lambda *_: pytest.fail("it was read again"))
    assert folder_digest(model, tmp_path / "cache") == digest


@pytest.mark.parametrize("change", ["content of equal size and time", "another file", "a file less", "another name"])
def test_a_remembered_digest_is_not_used_after_any_change(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    settle(model, monkeypatch)
    before = folder_digest(model, tmp_path / "cache")
    match change:
        case "content of equal size and time":
            (model / "config.json").write_text("[]")
            os.utime(model / "config.json", (1, 1))
        case "another file":
            (model / "more").write_text("")
        case "a file less":
            (model / "config.json").unlink()
        case "another name":
            (model / "config.json").rename(model / "config2.json")
    assert folder_digest(model, tmp_path / "cache") == folder_digest(model) != before


def test_nothing_is_remembered_of_files_that_changed_just_now(model: Path, tmp_path: Path) -> None:
    folder_digest(model, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_broken_memory_is_ignored(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(model, monkeypatch)
    digest = folder_digest(model, tmp_path / "cache")
    (memory,) = (tmp_path / "cache" / "digests").iterdir()
    for content in ("", "[]", '{"state": 1}'):
        memory.write_text(content)
        assert folder_digest(model, tmp_path / "cache") == digest


def test_a_path_that_this_service_may_not_read_is_a_fault_that_a_person_can_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(ReferenceFault, match=r"the path cannot be read: permission denied"):
        resolve(str(tmp_path / "data"), tmp_path / "cache")
