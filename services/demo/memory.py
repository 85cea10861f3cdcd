"""Measures the demo's memory (itself, services, broker and database together), for which it promises a limit."""

import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import psutil


def resident_bytes(roots: Iterable[int]) -> int:
    """Memory of the processes and all their descendants, each once; ended processes count nothing.

    A page that several of them share, as the forks of a warm process and those of PostgreSQL do, counts once on Linux. Elsewhere it counts
    for each, so the sum is an upper bound.
    """
    found: dict[int, psutil.Process] = {}
    for root in roots:
        try:
            process = psutil.Process(root)
            found |= {child.pid: child for child in (process, *process.children(recursive=True))}
        except psutil.Error:
            continue
    total = 0
    for process in found.values():
        try:
            total += _held(process)
        except psutil.Error:
            continue
    return total


def _held(process: psutil.Process) -> int:
    full = process.memory_full_info()
    return int(getattr(full, "pss", full.rss))


class PeakMemory:
    """Samples memory in its own thread during a `with` block; `peak` is the largest sum seen so far, in bytes."""

    def __init__(self, roots: Callable[[], Iterable[int]], *, every: float = 1.0) -> None:
        self.peak = 0
        self._roots, self._every = roots, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self.peak = max(self.peak, resident_bytes(self._roots()))
            if self._stop.wait(self._every):
                return
