"""Measures what a progress event costs the training that sends it: a report with a loss through a real pipe that a worker's thread reads."""

import os
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

from benchmarks.trainer import work
from services.chassis.executor import child
from services.chassis.executor.messages import ChildTask
from services.chassis.storage.sources.allowed import AllowedSources


def measure(quick: bool) -> dict[str, Any]:
    """Return the processor milliseconds of a sent report in the thread that trains, the median over all reports."""
    reports = 200 if quick else 5_000
    reads, writes = os.pipe()
    read: list[bytes] = []
    with tempfile.TemporaryDirectory() as home, os.fdopen(reads, "rb") as pipe:
        worker = threading.Thread(target=lambda: read.extend(pipe))
        worker.start()
        context = child.Context(_task(Path(home)), child.Channel(writes))
        child._PROGRESS_SECONDS = 0.0  # otherwise at most one report a second is sent
        seconds = [_report(context, step, reports) for step in range(1, reports + 1)]
        os.close(writes)
        worker.join()
    assert len(read) == reports, f"{len(read)} of {reports} reports arrived"
    return {"progress_milliseconds": 1_000 * median(seconds)}


def _report(context: child.Context, step: int, of: int) -> float:
    began = time.thread_time()
    context.progress(step, of, loss=1 / step, learning_rate=2e-4, tokens_per_second=1e4, gradient_norm=0.5)
    return time.thread_time() - began


def _task(home: Path) -> ChildTask:
    return ChildTask(
        job_id="bench", step="train", attempt=1, kind="train", memory_failures=0, results={},
        settings=work.settings("sft", home, 1, "auto"), inputs={}, artifacts=str(home), checkpoints=home, lease=uuid4().hex, cache=home,
        allowed=AllowedSources(folders=(home.resolve(),)),
    )  # fmt: skip
