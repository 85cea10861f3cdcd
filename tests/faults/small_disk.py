"""Servers whose broker writes to a small file system, which can be filled up without harm to anybody."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.chassis.devstack.settings import DevStackSettings
from services.chassis.devstack.stack import DevStack, running
from tests.conftest import create_topics

_SIZE = "160m"
_CAP_SYS_ADMIN = 21
"""capabilities(7)"""


def why_not() -> str | None:
    """Why a small file system cannot be made here; None where it can."""
    if sys.platform != "linux" or shutil.which("mount") is None or not _may_mount():
        return "only who may mount a small file system can fill one, and only on Linux"
    return None


def _may_mount() -> bool:
    """Whether this process has the capability: root in a container may lack it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(line.split()[1] for line in lines if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_SYS_ADMIN & 1)


@contextmanager
def on_small_disk(home: Path) -> Iterator[DevStack]:
    """The servers, with all topics."""
    folder = home / "kafka"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", folder], check=True)
    try:
        with running(DevStackSettings(home=home, kafka_bootstrap=None, database_url=None)) as stack:
            create_topics(stack)
            yield stack
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
