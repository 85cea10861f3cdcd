"""A control group with a limit of memory, in which the kernel kills a process when its group takes more."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

_V1, _V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
_LIMITS = ("memory.limit_in_bytes", "memory.max")
_MEMBERS = "cgroup.procs"


def why_not() -> str | None:
    """Return why no such group can be made here; None if it can."""
    try:
        with _group(2**40):
            return None
    except OSError as error:
        return f"only who may make control groups with a limit of memory can do this ({error})"


@contextmanager
def limited_memory(pid: int, size: int) -> Iterator[None]:
    """Limit the memory of a process, together with the children that it starts in the block."""
    before = _folder_of(pid)
    with _group(size) as group:
        (group / _MEMBERS).write_text(str(pid))
        try:
            yield
        finally:
            for member in (group / _MEMBERS).read_text().split():
                (before / _MEMBERS).write_text(member)


@contextmanager
def _group(size: int) -> Iterator[Path]:
    parent = _V1 if _V1.is_dir() else _V2
    group = parent / f"neuroweaver-{uuid4().hex}"
    group.mkdir()
    try:
        limit = next((group / name for name in _LIMITS if (group / name).exists()), group / _LIMITS[-1])
        limit.write_text(str(size))
        yield group
    finally:
        group.rmdir()


def _folder_of(pid: int) -> Path:
    """Return the group of a process in which its memory counts."""
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    mount, wanted = (_V1, "memory") if _V1.is_dir() else (_V2, "")
    return next(mount / group.lstrip("/") for _, controllers, group in lines if wanted in controllers.split(","))
