"""Finds what the kernel keeps for the control groups of this process, in cgroup v2 and v1: its limit of memory, its kills."""

from collections.abc import Iterator
from pathlib import Path

_V2 = ("sys/fs/cgroup", "sys/fs/cgroup/unified")
_V1 = "sys/fs/cgroup/memory"


def accounts(v2: str, v1: str, root: Path = Path("/")) -> Iterator[Path]:
    """Yield where the file named `v2`, or `v1`, may be: in the group of this process, those above it, and that which a container sees as
    the root. `root` is the parent of /proc and /sys.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        parts = group.strip("/").split("/")
        for depth in range(len(parts), 0, -1):
            if controllers == "":
                yield from (root.joinpath(mount, *parts[:depth], v2) for mount in _V2)
            elif "memory" in controllers.split(","):
                yield root.joinpath(_V1, *parts[:depth], v1)
    yield from (root.joinpath(mount, v2) for mount in _V2)
    yield root.joinpath(_V1, v1)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return the bytes of main memory to which the groups of this process are limited, the least of all; None if none has a limit."""
    limits = []
    for path in accounts("memory.max", "memory.limit_in_bytes", root):
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # there is no such group, or it has no limit
            continue
    return min(limits, default=None)
