"""The promised memory is that of everything that runs, so children count and nothing counts twice."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from services.demo.memory import PeakMemory, resident_bytes

_SIZE = 60_000_000
_CHILD = f"import sys; held = b'x' * {_SIZE}; print('ready', flush=True); sys.stdin.read()"


@pytest.fixture
def child() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_children_count_and_a_process_named_twice_counts_once(child: int) -> None:
    mine = psutil.Process().memory_full_info()
    both = resident_bytes([os.getpid()])
    assert both > getattr(mine, "pss", mine.rss) + _SIZE * 0.9
    assert resident_bytes([os.getpid(), child]) < both + _SIZE * 0.5


def test_a_process_that_is_gone_counts_nothing() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert resident_bytes([gone.pid]) == 0


def test_the_peak_outlives_what_caused_it() -> None:
    alone = resident_bytes([os.getpid()])
    with PeakMemory(lambda: [os.getpid()], every=0.02) as memory:
        with subprocess.Popen([sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            give_up = time.monotonic() + 120
            while memory.peak <= alone + _SIZE * 0.9 and time.monotonic() < give_up:
                time.sleep(0.02)
            process.kill()
        assert memory.peak > resident_bytes([os.getpid()]) + _SIZE * 0.9
