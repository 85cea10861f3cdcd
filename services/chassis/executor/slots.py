"""Counts what attempts use of this machine, so that as many run at once as fit, whichever process and service runs them.

An executor uses at most its part, and all of them together at most the machine. An attempt counts at most that part: one that needs more
runs alone. Main memory and cores are those that running attempts need; a GPU's memory is also what its driver says, since other programs
use GPUs too.
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


class Allocation(NamedTuple):
    """Where an attempt runs, and what it counts for its usage."""

    gpus: tuple[int, ...]
    """The numbers of its GPUs on this machine; empty for a step without one."""
    cores: int
    devices: int = 0
    """How many GPUs it counts."""
    held: int | None = None
    """A descriptor that its process keeps open, so that it counts as long as it runs."""


NOWHERE = Allocation((), 0)
"""The place of an attempt that counts nothing."""


@dataclass(frozen=True)
class Machine:
    """What the attempts of an executor may use in all, and what a step of unknown need counts."""

    cores: int
    memory_mb: int
    step_cores: int
    step_memory_mb: int
    reserved: Allocation | None = None
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
    return Machine(0, 0, 0, 0, Allocation((), cores, devices))


class Whole(NamedTuple):
    """What the machine, or the container, has for the attempts of all executors together."""

    cores: int
    memory_mb: int

    @classmethod
    def of(cls, settings: ServiceSettings) -> "Whole":
        """What this process may use, or the part that the settings give to one executor where they name more than there is."""
        return cls(max(_cores(), settings.slot_cores or 0), max(_memory() // _MB, settings.slot_memory_mb or 0))


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


class Counted(NamedTuple):
    """What an attempt counts in the account of a machine, in whole units."""

    cores: int
    memory_mb: int
    device_mb: int
    """Memory of each of its GPUs."""
    gpus: tuple[int, ...]
    """Their numbers; none yet for an attempt that waits for GPUs."""


class Slots:
    """What is used of one machine; `devices` reads its GPUs, and an attempt that needs one gets `together` of them, in as many processes.

    `whole` limits what all executors use together; without it, nothing but this executor's part does.
    """

    def __init__(
        self, machine: Machine, devices: "Callable[[], Sequence[Device]]", together: int = 1, whole: Whole | None = None
    ) -> None:
        self.machine, self._read, self._together, self._whole = machine, devices, together, whole
        self._devices: Sequence[Device] = ()
        self._own: list[Used] = []
        self._beside: Sequence[Used] = ()
        self._others: Sequence[Counted] = ()

    async def look(self) -> None:
        """Read the GPUs."""
        self._devices = await asyncio.to_thread(self._read) or self._devices

    def free(self, beside: Sequence[Used] = (), others: Sequence[Counted] = ()) -> Free:
        """Return what is free now, where other processes of this service run `beside`, and other services count `others`."""
        self._beside, self._others = beside, others
        needs = [self.machine.counted(used.need) for used in self._used]
        cores, memory_mb = sum(need.cores or 0 for need in needs), sum(need.memory_mb or 0 for need in needs)
        left = self._left(cores, memory_mb)
        gpus = tuple(sorted(range(len(self._devices)), key=self._free_on, reverse=True)[: self._together])
        return Free(
            cores=min(self.machine.cores - cores, left.cores),
            memory_mb=min(self.machine.memory_mb - memory_mb, left.memory_mb),
            device_mb=min(map(self._free_on, gpus), default=None),
            gpus=gpus,
        )

    def _left(self, cores: int, memory_mb: int) -> Whole:
        """Return what other services leave of the machine, where this one counts so much; never less than nothing."""
        if self._whole is None:
            return Whole(self.machine.cores, self.machine.memory_mb)
        there = self._whole.memory_mb - sum(other.memory_mb for other in self._others)
        return Whole(
            max(0, self._whole.cores - sum(other.cores for other in self._others) - cores),
            max(0, there // self._together - memory_mb),
        )

    def counted(self, need: Need, gpus: Sequence[int] = ()) -> Counted:
        """Return what an attempt of this executor counts in the account of the machine."""
        here = self.machine.counted(need)
        device_mb = self.device_mb if need.device_mb is None else min(self.device_mb, need.device_mb)
        return Counted(here.cores or 0, (here.memory_mb or 0) * self._together, device_mb, tuple(gpus))

    @property
    def device_mb(self) -> int:
        """The memory of the largest GPU: what a step of unknown need counts on one; 0 without GPUs."""
        return max((device.total_mb for device in self._devices), default=0)

    @contextmanager
    def taken(self, need: Need, gpus: Sequence[int], held: int | None = None) -> Iterator[Allocation]:
        """Count an attempt on these GPUs, or on none, during the block; `held` is the descriptor of its line in the account."""
        used = Used(need, tuple(gpus))
        self._own.append(used)
        try:
            here = Allocation(used.gpus, self.machine.counted(need).cores or 0, len(used.gpus))
            yield (self.machine.reserved or here)._replace(held=held)
        finally:
            self._own.remove(used)

    @property
    def _used(self) -> Sequence[Used]:
        return (*self._own, *self._beside)

    def _free_on(self, number: int) -> int:
        """The free memory of a GPU. Without attempts of executors all of it counts as free, so that each step can run alone."""
        device = self._devices[number]
        own = [used.need.device_mb for used in self._used if number in used.gpus]
        others = [other.device_mb for other in self._others if number in other.gpus]
        if any(other.device_mb and not other.gpus for other in self._others):
            return 0  # the next GPU is kept for an attempt that has waited longer
        counted = sum(device.total_mb if need is None else min(device.total_mb, need) for need in (*own, *others))
        return min(device.free_mb, device.total_mb - counted) if own or others else device.total_mb


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
