"""The kernel's count of processes killed for memory, and the limit of memory, are found wherever this machine keeps them."""

from pathlib import Path

import pytest

from services.chassis.executor.control_group import memory_limit
from services.chassis.executor.oom import fault_of_exit, oom_kills


def a_machine(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


V2 = "low 0\nhigh 0\nmax 12\noom 2\noom_kill 3\noom_group_kill 0\n"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.events": V2}, 3),
        ({"proc/self/cgroup": "0::/host/path\n", "sys/fs/cgroup/memory.events": V2}, 3),
        ({"proc/self/cgroup": "4:memory:/a\n0::/\n", "sys/fs/cgroup/memory/a/memory.oom_control": V1}, 5),
        ({"proc/self/cgroup": "2:cpu,memory:/host\n", "sys/fs/cgroup/memory/memory.oom_control": V1}, 5),
        ({"proc/self/cgroup": "0::/\n", "proc/vmstat": "pgfault 9\noom_kill 7\n"}, 7),
        ({}, None),
    ],
    ids=["v2", "v2 seen from a container", "v1", "v1 seen from a container", "no control group", "nothing"],
)
def test_the_count_is_read_from_the_most_particular_place(tmp_path: Path, files: dict[str, str], count: int | None) -> None:
    assert oom_kills(a_machine(tmp_path, files)) == count


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
                "sys/fs/cgroup/a/memory.max": "700\n",
            },
            700,
        ),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "300\n", "sys/fs/cgroup/memory.max": "400\n"}, 300),
        ({"proc/self/cgroup": "0::/host/path\n", "sys/fs/cgroup/memory.max": "900\n"}, 900),
        ({"sys/fs/cgroup/memory.max": "max\n"}, None),
        ({"proc/self/cgroup": "4:memory:/a/b\n0::/\n", "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "500\n"}, 500),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "600\n"}, 600),
        ({}, None),
    ],
    ids=["a group above", "the least", "v2 seen from a container", "no limit", "v1", "v1 seen from a container", "nothing"],
)
def test_the_limit_is_the_least_of_all_groups(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    assert memory_limit(a_machine(tmp_path, files)) == limit


@pytest.mark.parametrize(
    ("returncode", "before", "after", "cause", "words"),
    [
        (-9, 0, 1, "memory", "memory ran out"),
        (-9, 1, 1, "infrastructure", "SIGKILL"),
        (-9, None, None, "infrastructure", "SIGKILL"),
        (-11, 0, 1, "infrastructure", "SIGSEGV"),
        (3, 0, 1, "infrastructure", "exit code 3"),
        (0, 0, 0, "infrastructure", "exit code 0"),
    ],
)
def test_only_a_killed_process_whose_kill_the_kernel_counted_died_of_memory(
    returncode: int, before: int | None, after: int | None, cause: str, words: str
) -> None:
    fault = fault_of_exit(returncode, before, after)
    assert fault.cause == cause
    assert words in fault.message
