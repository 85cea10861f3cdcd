"""What says that nothing can be written, what only seems to, and when work that had no room is tried again."""

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.executor.disk_space import RefusedAttempt, may_try
from services.chassis.storage.durable import place, sync
from services.chassis.storage.stores import (
    DENIED,
    FULL,
    QUOTA,
    READ_ONLY,
    Space,
    Unwritable,
    obstacle,
    unwritable,
    writing,
)

HOME = Path("/home/of/neuroweaver")


class SafetensorError(Exception):
    """As the library has it."""


SafetensorError.__module__ = "safetensors_rust"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), QUOTA),
        (OSError(errno.EROFS, "Read-only file system", str(HOME / "x")), READ_ONLY),
        (PermissionError(errno.EACCES, "Permission denied", str(HOME / "x")), DENIED),
        (OSError("Not enough disk space. Needed: 5 GiB"), FULL),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), FULL),
        (RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/0: file write failed"), FULL),
        (OSError(errno.EIO, "An error occurred (XMinioStorageFull) when calling the PutObject operation"), FULL),
        (OSError(errno.EIO, "An error occurred (QuotaExceeded) when calling the UploadPart operation"), QUOTA),
    ],
)
def test_what_says_that_nothing_can_be_written(error: Exception, why: str) -> None:
    found = unwritable(error, [HOME])
    assert found is not None
    assert found.why == why


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        PermissionError(errno.EACCES, "Permission denied", "/data/of/somebody/else"),
        ValueError("row 7: 'No space left on device' is no answer"),
        KeyError("No space left on device"),
        RuntimeError("a bug"),
    ],
)
def test_what_only_seems_to(error: Exception) -> None:
    assert unwritable(error, [HOME]) is None


def test_the_words_name_place_free_and_wanted(tmp_path: Path) -> None:
    words = r"the disk is full, .* free, 12.6 MB \(12582912 bytes\) wanted"
    with pytest.raises(OSError, match=words) as raised, writing(tmp_path, 12 * 2**20):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(tmp_path) in str(raised.value)


def test_an_error_that_hides_where_it_came_from_is_taken_at_its_word() -> None:
    def raised() -> None:
        try:
            raise OSError(errno.EROFS, "Read-only file system", "/cache/of/a/library")
        except OSError:
            raise RuntimeError("the data are wrong") from None

    with pytest.raises(RuntimeError) as error:
        raised()
    assert unwritable(error.value, [HOME]) is None


def test_another_error_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), writing(tmp_path):
        raise ZeroDivisionError


def test_an_obstacle_is_what_would_stop_the_next_write() -> None:
    fine = Space(free=100, nodes=True, read_only=False, denied=False)
    assert obstacle(HOME, fine, least=100) is None
    short = obstacle(HOME, fine, least=101)
    assert short == Unwritable(place=str(HOME), why=FULL, free=100, wanted=101)
    reasons = [
        obstacle(HOME, Space(free=100, nodes=False, read_only=False, denied=False), 0),
        obstacle(HOME, Space(free=100, nodes=True, read_only=True, denied=True), 0),
        obstacle(HOME, Space(free=100, nodes=True, read_only=False, denied=True), 0),
    ]
    assert [found and found.why for found in reasons] == [f"{FULL}, it has no room for another file", READ_ONLY, DENIED]


@given(
    wanted=st.none() | st.integers(0, 10**6), then=st.none() | st.integers(0, 10**6), free=st.none() | st.integers(0, 10**6),
    times=st.integers(1, 100), waited=st.floats(0, 1000),
)  # fmt: skip
def test_nothing_is_tried_that_surely_fails_and_nothing_waits_for_ever_where_it_may_succeed(
    wanted: int | None, then: int | None, free: int | None, times: int, waited: float
) -> None:
    refusal = RefusedAttempt(Unwritable(place="/x", why=FULL, free=then, wanted=wanted), times, at=50.0)
    tried = may_try(refusal, 50.0 + waited, free, reserve=1000)
    if wanted is not None and free is not None and free < wanted:
        assert not tried
    elif waited >= 300:
        assert tried


def test_a_place_on_another_file_system_is_filled_by_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "deep" / "file").write_text("x")
    real = Path.rename

    def across(self: Path, target: Path) -> Path:
        if self == made:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", across)
    place(made, tmp_path / "there" / "it")
    assert (tmp_path / "there" / "it" / "deep" / "file").read_text() == "x"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "file", "it", "there"]


def test_a_file_system_without_sync_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(descriptor: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("os.fsync", unknown)
    sync(tmp_path)


def test_a_sync_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.fsync", fails)
    with pytest.raises(OSError, match="Input/output error"):
        sync(tmp_path)
