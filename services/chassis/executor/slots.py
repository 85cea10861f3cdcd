"""Counts what the attempts of one executor use of this machine, so that as many run at once as fit.

An attempt counts at most the whole machine: one that needs more runs alone. Main memory and cores are those that running attempts
need; a GPU's memory is also what its driver says, since other programs use GPUs too.
"""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from services.chassis.executor.needs import Need
from services.chassis.settings import ServiceSettings

_MB = 1024 * 1024
_SMI = ("--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits")
_SMI_SECONDS = 10.0
_SMI_EVERY_SECONDS = 3.0


class Device(NamedTuple):
    """The memory of a GPU."""

    total_mb: int
    free_mb: int
    """What its driver says, with everything that runs on it."""


@dataclass(frozen=True)
class Machine:
    """What the attempts of an executor may use in all, and what a step of unknown need counts."""

    cores: int
    memory_mb: int
    step_cores: int
    step_memory_mb: int

    @classmethod
    def of(cls, settings: ServiceSettings, devices: int = 0, processes: int = 1) -> "Machine":
        """The machine of this process, or the part of it that the settings name. With GPUs, a step of unknown need counts its share.

        `processes`: how many do a step together; each of them may use its share of the memory, since each needs what one needs.
        """
        cores = settings.slot_cores or _cores()
        memory = (settings.slot_memory_mb or _memory() // _MB) // processes
        return cls(
            cores=cores,
            memory_mb=memory,
            step_cores=min(cores, settings.step_cores or max(1, cores // max(1, devices))),
            step_memory_mb=min(memory, settings.step_memory_mb or memory // max(4, devices)),
        )

    def counted(self, need: Need) -> Need:
        """Return what an attempt counts here: its need, or that of a step of unknown need, at most the whole machine."""
        cores = self.step_cores if need.cores is None else need.cores
        memory = self.step_memory_mb if need.memory_mb is None else need.memory_mb
        return Need(min(self.cores, cores), min(self.memory_mb, memory), need.device_mb)


ELSEWHERE = Machine(0, 0, 0, 0)
"""For attempts that run on other machines: they count nothing here, so only the number of workers limits them."""


class Free(NamedTuple):
    """What a claim may use now; for GPUs the memory that each of those has that an attempt would get."""

    cores: int
    memory_mb: int
    device_mb: int | None
    """None on a machine without GPUs, where the need of a GPU does not count."""


class Slots:
    """What is used of one machine; `devices` reads its GPUs, and an attempt that needs one gets `together` of them."""

    def __init__(self, machine: Machine, devices: "Callable[[], Sequence[Device]]", together: int = 1) -> None:
        self.machine, self._read, self._together = machine, devices, together
        self._devices: Sequence[Device] = ()
        self._cores = self._memory = 0
        self._on_device: dict[int, int] = {}

    async def look(self) -> Free:
        """Read the GPUs and return what is free now."""
        self._devices = await asyncio.to_thread(self._read) or self._devices
        least = min((self._free_on(number) for number in self._freest()), default=None)
        return Free(self.machine.cores - self._cores, self.machine.memory_mb - self._memory, least)

    @property
    def device_mb(self) -> int:
        """The memory of the largest GPU: what a step of unknown need counts on one; 0 without GPUs."""
        return max((device.total_mb for device in self._devices), default=0)

    @contextmanager
    def taken(self, need: Need) -> Iterator[tuple[int, ...]]:
        """Count an attempt during the block; yields the numbers of its GPUs, none for a step that needs none."""
        counted = self.machine.counted(need)
        on_devices = self._on(counted.device_mb)
        self._count(counted, on_devices, 1)
        try:
            yield tuple(on_devices)
        finally:
            self._count(counted, on_devices, -1)

    def _count(self, need: Need, on_devices: Mapping[int, int], sign: int) -> None:
        self._cores += sign * (need.cores or 0)
        self._memory += sign * (need.memory_mb or 0)
        for device, used in on_devices.items():
            self._on_device[device] = self._on_device.get(device, 0) + sign * used

    def _on(self, wanted: int | None) -> Mapping[int, int]:
        """Choose GPUs for an attempt; returns what it counts on each."""
        if wanted == 0:
            return {}
        totals = {number: self._devices[number].total_mb for number in self._freest()}
        return {number: total if wanted is None else min(total, wanted) for number, total in totals.items()}

    def _freest(self) -> Sequence[int]:
        """The GPUs with the most free memory, as many as an attempt gets."""
        return sorted(range(len(self._devices)), key=self._free_on, reverse=True)[: self._together]

    def _free_on(self, number: int) -> int:
        """The free memory of a GPU. Without attempts of this executor all of it counts as free, so that each step can run alone."""
        device, used = self._devices[number], self._on_device.get(number, 0)
        return min(device.free_mb, device.total_mb - used) if used else device.total_mb


def no_devices() -> Sequence[Device]:
    """The GPUs of a machine that has none."""
    return ()


def device_reader() -> Callable[[], Sequence[Device]]:
    """Return the function that reads this machine's NVIDIA GPUs with the driver's own program, at most once in some seconds."""
    program = shutil.which("nvidia-smi")
    if program is None or not (found := _devices(program)):
        return no_devices
    read_at = time.monotonic()

    def read() -> Sequence[Device]:
        nonlocal found, read_at
        if time.monotonic() - read_at > _SMI_EVERY_SECONDS:
            found, read_at = _devices(program), time.monotonic()
        return found

    return read


def _devices(program: str) -> Sequence[Device]:
    try:
        said = subprocess.run([program, *_SMI], capture_output=True, text=True, timeout=_SMI_SECONDS, check=True).stdout
        return [Device(*map(int, line.split(","))) for line in said.splitlines() if line.strip()]
    except (OSError, ValueError, TypeError, subprocess.SubprocessError):
        return ()


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory(root: Path = Path("/")) -> int:
    """Bytes of main memory that this process may use: the machine's, or its control group's where that has a limit."""
    total = psutil.virtual_memory().total
    for limit in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return min(total, int((root / limit).read_text()))
        except (OSError, ValueError):  # there is no such group, or it has no limit
            continue
    return total
