"""Counts what the attempts of one executor use of this machine, so that as many run at once as fit, whichever process runs them.

An attempt counts at most the whole machine: one that needs more runs alone. Main memory and cores are those that running attempts
need; a GPU's memory is also what its driver says, since other programs use GPUs too.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from services.chassis.executor.control_group import memory_limit
from services.chassis.executor.devices import Device
from services.chassis.executor.needs import Need
from services.chassis.settings import ServiceSettings

_MB = 1024 * 1024


class Place(NamedTuple):
    """Where an attempt runs, and what it counts for its usage."""

    gpus: tuple[int, ...]
    """The numbers of its GPUs on this machine; empty for a step without one."""
    cores: int
    devices: int = 0
    """How many GPUs it counts."""


NOWHERE = Place((), 0)
"""The place of an attempt that counts nothing."""


@dataclass(frozen=True)
class Machine:
    """What the attempts of an executor may use in all, and what a step of unknown need counts."""

    cores: int
    memory_mb: int
    step_cores: int
    step_memory_mb: int
    reserved: Place | None = None
    """What each attempt counts where it runs, if that is another machine."""

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


def elsewhere(cores: int, devices: int) -> Machine:
    """For attempts that run on other machines, where each reserves so much: here only the number of workers limits them."""
    return Machine(0, 0, 0, 0, Place((), cores, devices))


class Free(NamedTuple):
    """What a claim may use now; for GPUs the memory that each of those has that an attempt would get."""

    cores: int
    memory_mb: int
    device_mb: int | None
    """None on a machine without GPUs, where the need of a GPU does not count."""
    gpus: tuple[int, ...] = ()
    """The numbers of those GPUs."""


class Used(NamedTuple):
    """What an attempt of another process counts on this machine."""

    need: Need
    gpus: tuple[int, ...]
    """The numbers of its GPUs."""


class Slots:
    """What is used of one machine; `devices` reads its GPUs, and an attempt that needs one gets `together` of them."""

    def __init__(self, machine: Machine, devices: "Callable[[], Sequence[Device]]", together: int = 1) -> None:
        self.machine, self._read, self._together = machine, devices, together
        self._devices: Sequence[Device] = ()
        self._own: list[Used] = []
        self._others: Sequence[Used] = ()

    async def look(self) -> None:
        """Read the GPUs."""
        self._devices = await asyncio.to_thread(self._read) or self._devices

    def free(self, others: Sequence[Used] = ()) -> Free:
        """Return what is free now, where `others` run beside the attempts of this process."""
        self._others = others
        needs = [self.machine.counted(used.need) for used in self._used]
        gpus = tuple(sorted(range(len(self._devices)), key=self._free_on, reverse=True)[: self._together])
        return Free(
            cores=self.machine.cores - sum(need.cores or 0 for need in needs),
            memory_mb=self.machine.memory_mb - sum(need.memory_mb or 0 for need in needs),
            device_mb=min(map(self._free_on, gpus), default=None),
            gpus=gpus,
        )

    @property
    def device_mb(self) -> int:
        """The memory of the largest GPU: what a step of unknown need counts on one; 0 without GPUs."""
        return max((device.total_mb for device in self._devices), default=0)

    @contextmanager
    def taken(self, need: Need, gpus: Sequence[int]) -> Iterator[Place]:
        """Count an attempt on these GPUs, or on none, during the block."""
        used = Used(need, tuple(gpus))
        self._own.append(used)
        try:
            yield self.machine.reserved or Place(used.gpus, self.machine.counted(need).cores or 0, len(used.gpus))
        finally:
            self._own.remove(used)

    @property
    def _used(self) -> Sequence[Used]:
        return (*self._own, *self._others)

    def _free_on(self, number: int) -> int:
        """The free memory of a GPU. Without attempts of executors all of it counts as free, so that each step can run alone."""
        device = self._devices[number]
        there = [used.need.device_mb for used in self._used if number in used.gpus]
        counted = sum(device.total_mb if need is None else min(device.total_mb, need) for need in there)
        return min(device.free_mb, device.total_mb - counted) if there else device.total_mb


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory(root: Path = Path("/")) -> int:
    """Bytes of main memory that this process may use: the machine's, or that of its control group if it has a limit."""
    total = psutil.virtual_memory().total
    return min(total, memory_limit(root) or total)


def machine_name(boot: Path = Path("/proc/sys/kernel/random/boot_id")) -> str:
    """Return a name that the processes of one machine, or of one container, share and no others have."""
    try:
        return f"{socket.gethostname()}/{boot.read_text().strip()}"
    except OSError:
        return socket.gethostname()
