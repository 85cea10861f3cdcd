"""Distinguishes a child that the kernel killed for lack of memory from one killed by another process, by the kernel's counter."""

import re
import signal
from pathlib import Path

from schemas.jobs import StepFault
from services.chassis.executor.control_group import accounts

_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def oom_kills(root: Path = Path("/")) -> int | None:
    """Return how many processes of this control group the kernel has killed for lack of memory; None where no counter
    exists.

    Reads cgroup v2 and v1, then the counter of the whole machine. `root` is the parent of /proc and /sys.
    """
    for path in (*accounts("memory.events", "memory.oom_control", root), root / "proc/vmstat"):
        try:
            match = _COUNT.search(path.read_text())
        except OSError:
            continue
        if match:
            return int(match[1])
    return None


def fault_of_exit(returncode: int | None, killed_before: int | None, killed_after: int | None) -> StepFault:
    """Return the fault of a child that ended without a final message."""
    if returncode is None or returncode >= 0:
        return StepFault(cause="infrastructure", message=f"the process ended with exit code {returncode} and no result")
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    if returncode == -signal.SIGKILL and (killed_after or 0) > (killed_before or 0):
        return StepFault(cause="memory", message="the process was killed by the kernel because memory ran out (SIGKILL)")
    return StepFault(cause="infrastructure", message=f"the process was killed by {name} and left no result")
