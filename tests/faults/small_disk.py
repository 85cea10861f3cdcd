"""Small file systems, which can be filled up without harm to anybody."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.devstack.settings import DevStackSettings
from services.devstack.stack import DevStack, running
from tests.conftest import create_topics

_SIZE = "160m"
_CAP_SYS_ADMIN = 21
"""capabilities(7)"""


def why_not() -> str | None:
    """Return why a small file system cannot be made here; None if it can."""
    if sys.platform != "linux" or shutil.which("mount") is None or not _may_mount():
        return "only who may mount a small file system can fill one, and only on Linux"
    return None


def _may_mount() -> bool:
    """Return whether this process has the capability, which root in a container may lack."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_SYS_ADMIN & 1)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system in memory at `folder` during the block; `size` has the form of mount(8)."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder: Path, how: str) -> None:
    """Mount it again with other options of mount(8), such as `ro`, `rw` or `size=8m`."""
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


def fill(filler: Path, leave: int = 0) -> None:
    """Fill the file system except for `leave` bytes."""
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while shutil.disk_usage(filler.parent).free > leave:
            file.write(bytes(2**16))
            file.flush()


@contextmanager
def on_small_disk(home: Path) -> Iterator[DevStack]:
    """Run servers with all topics whose broker writes to a small file system."""
    with (
        small_disk(home / "kafka", _SIZE),
        running(DevStackSettings(home=home, kafka_bootstrap=None, database_url=None)) as stack,
    ):
        create_topics(stack)
        yield stack
