"""Forks children of the trainer from a process that has the imports, which saves each of them several seconds."""

import multiprocessing
import os
import sys
from pathlib import Path

from services.chassis.executor.messages import CHANNEL_VARIABLE

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["services.trainer.child", "services.trainer.steps.train", "trl.trainer.dpo_trainer"])


def become_child(task: str, channel: Path = Path(os.devnull)) -> None:
    """Make this process one that a worker has started: it gets its task, and what it says is written to `channel`."""
    given, giving = os.pipe()
    os.dup2(given, 0)
    os.write(giving, task.encode() + b"\n")
    sys.stdin = os.fdopen(0)
    os.environ[CHANNEL_VARIABLE] = str(os.open(channel, os.O_WRONLY | os.O_CREAT))
