"""Refuses a model that the machine's memory cannot hold, before a process reads it and the kernel kills one.

Sizes come from the headers of the files of weights. A model is counted as fp32 on the way in, and an adapter as its whole base model in
fp32 twice, since it is merged in fp32 and cast beside it.
"""

import json
import math
import struct
from pathlib import Path

import psutil

from services.chassis.executor.control_group import memory_limit
from services.registry.deploying.faults import Refused

_LIBRARIES = 790 * 2**20
"""What the process takes before it loads a model: PyTorch and transformers, as the trainer measured it."""
_BYTES = 4
_CACHE = 256 * 2**20
"""Keys and values of the answers that are decoded."""
_MEGABYTE = 2**20


def admit_process(folder: Path, served: str) -> None:
    """Raise Refused if a process with the model in `folder` does not fit into the memory that is free."""
    _admit(_LIBRARIES + _CACHE + _BYTES * _weights(folder), served)


def admit_adapter(base: Path, served: str) -> None:
    """Raise Refused if an adapter cannot be merged into the base model in `base` in the memory that is free."""
    _admit(2 * _BYTES * _weights(base), served)


def free_memory() -> int:
    """Return the bytes that a new process may take: what is free on the machine, within the limit of its control group."""
    free, limit = psutil.virtual_memory().available, memory_limit()
    if limit is None:
        return free
    family = psutil.Process()
    used = sum(_resident(process) for process in (family, *family.children(recursive=True)))
    return max(0, min(free, limit - used))


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _admit(needed: int, served: str) -> None:
    free = free_memory()
    if needed > free:
        what = f"{served} needs about {needed // _MEGABYTE} MB of memory while it is loaded, and {free // _MEGABYTE} MB are free"
        raise Refused("OutOfMemory", f"{what}; retire another deployment, let trainings end, or take a larger machine")


def _weights(folder: Path) -> int:
    """Return how many weights the safetensors files of a folder have, by their headers; a file without one counts its bytes."""
    return sum(_weights_in(file) for file in folder.glob("*.safetensors"))


def _weights_in(file: Path) -> int:
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(min(length, size)))
        return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, struct.error, RecursionError):
        return size
